"""`reslight report`: one HTML file about what a network gets wrong, and why."""

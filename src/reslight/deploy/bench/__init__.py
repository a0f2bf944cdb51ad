"""`reslight bench`: a network in torch and exported files side by side in one run."""

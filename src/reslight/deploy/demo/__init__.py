"""`reslight demo`: a page in the browser that classifies images, here or as a Space on the Hugging Face Hub."""

"""`reslight predict`: the classes of any number of image files, written to a file row by row."""

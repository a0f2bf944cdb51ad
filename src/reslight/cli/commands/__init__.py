"""The commands, one file for each topic: their arguments, and the functions that run them and print the results."""

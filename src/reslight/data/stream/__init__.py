"""Data that may be larger than the disk: litdata's chunks, in a folder or on S3, read in an order that depends on the seed alone."""

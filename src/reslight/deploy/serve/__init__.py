"""`reslight serve`: classify images that come over HTTP."""

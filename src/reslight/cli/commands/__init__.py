"""One file a topic: the arguments of its commands, and the functions that run them. They print."""

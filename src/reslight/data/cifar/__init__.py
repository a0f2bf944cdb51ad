"""CIFAR-10 and CIFAR-100: metadata, download, and the three file formats that they come in."""

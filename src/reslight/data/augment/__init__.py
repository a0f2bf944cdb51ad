"""Augmentation, batched on the device: each image's parameters are a function of (seed, epoch, index)."""

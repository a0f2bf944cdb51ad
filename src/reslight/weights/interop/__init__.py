"""Weights of other libraries: torchvision, timm, transformers, the CIFAR repositories, ONNX."""

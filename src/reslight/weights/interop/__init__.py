"""Other libraries: names, configurations and files of torchvision, timm, transformers, the CIFAR repositories and ONNX."""

"""ImageNet on top of image_folder: label files and synsets."""

"""Parts of the study of where the training images are."""

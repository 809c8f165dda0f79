"""Pretrained convolutional networks whose feature maps the statistical methods look at."""

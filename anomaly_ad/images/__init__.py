"""Stage 1, images: find the files, read them, bring them to the model's size, stream them.

Inside this package an image is RGB uint8 of shape (H, W, 3). Sizes are (height, width); boxes are
xyxy in pixels. Masks are bool of the image's size.
"""

from .arrays import check_array, is_image, is_pil
from .dataset import ImageSet, image_digest, sample_sizes, split, split_groups
from .decoding import (
    MAX_PIXELS,
    MIN_SIDE,
    PathLike,
    check_path,
    decode_image,
    read_bytes,
    read_image,
    stored_as,
)
from .folders import TrainingImages, find_training_images
from .formats import SUFFIXES, Image
from .framing import Framing, model_inputs
from .listing import Listing, find_images, list_images
from .masks import read_mask

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "Framing",
    "Image",
    "ImageSet",
    "Listing",
    "PathLike",
    "TrainingImages",
    "check_array",
    "check_path",
    "decode_image",
    "find_images",
    "find_training_images",
    "image_digest",
    "is_image",
    "is_pil",
    "list_images",
    "model_inputs",
    "read_bytes",
    "read_image",
    "read_mask",
    "sample_sizes",
    "split",
    "split_groups",
    "stored_as",
]

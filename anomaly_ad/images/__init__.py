"""Stage 1, images: find the files, read them, bring them to the model's size, stream them.

Inside this package an image is RGB of shape (H, W, 3), uint8 once a model has taken it. Sizes are
(height, width); boxes are xyxy in pixels. Masks are bool of the image's size.
"""

from .arrays import check_array, is_image, is_pil
from .dataset import ImageSet, image_digest, split, split_groups
from .decoding import (
    MAX_PIXELS,
    MIN_SIDE,
    PathLike,
    check_path,
    decode_image,
    decode_with_header,
    page_of,
    read_bytes,
    read_image,
    stored_as,
)
from .folders import TrainingImages, find_training_images
from .formats import SUFFIXES, Image, Pixels
from .framing import Framing, model_inputs
from .listing import Listing, find_images, list_images
from .masks import read_mask
from .part import find_part
from .photograph import Photograph, Survey, of_pages, survey
from .taken import Taken
from .tiles import Seen
from .values import ValueRange, check_value_range

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "Framing",
    "Image",
    "ImageSet",
    "Listing",
    "PathLike",
    "Photograph",
    "Pixels",
    "Seen",
    "Survey",
    "Taken",
    "TrainingImages",
    "ValueRange",
    "check_array",
    "check_path",
    "check_value_range",
    "decode_image",
    "decode_with_header",
    "find_images",
    "find_part",
    "find_training_images",
    "image_digest",
    "is_image",
    "is_pil",
    "list_images",
    "model_inputs",
    "of_pages",
    "page_of",
    "read_bytes",
    "read_image",
    "read_mask",
    "split",
    "split_groups",
    "stored_as",
    "survey",
]

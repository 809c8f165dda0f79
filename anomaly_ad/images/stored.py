"""Small pictures in a manifest: a PNG in base64."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError


def as_text(picture: NDArray[np.uint8], *options: int) -> str:
    """A gray picture of uint8, shape (h, w), as a PNG in base64; `options` are OpenCV's."""
    _, data = cv2.imencode(".png", picture, options)
    return base64.b64encode(data.tobytes()).decode()


def from_text(text: Any, what: str) -> NDArray[np.uint8]:
    """The inverse of `as_text`; OptionError names `what` it is of where it is damaged."""
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        found = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    except (ValueError, TypeError, cv2.error):
        found = None
    if found is None:
        raise OptionError(f"The {what} of a model is a PNG in base64; this one is damaged.")
    return np.asarray(found, np.uint8)

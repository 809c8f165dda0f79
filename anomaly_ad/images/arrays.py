"""Images that are handed over in memory: the certain is taken, all else gets the right advice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .decoding import check_size
from .formats import Pixels, turned

_ORIENTATION = 0x0112
_PIL_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "RGBX", "CMYK", "YCbCr", "HSV")
_DEEP_PIL_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def check_array(image: Any, *, deep: bool = False) -> Pixels:
    """Check an image that is handed over in memory, and bring it to (H, W, 3).

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); or PIL.Image.Image
        Gray, RGB or RGBA (the alpha channel is ignored). OpenCV reads BGR: convert it with
        ``cv2.cvtColor(image, cv2.COLOR_BGR2RGB)`` first. A PIL image has 8 bits a channel; the
        orientation that a camera noted is applied.
    deep : bool
        Whether the model was trained on images of more than 8 bits: then arrays of any whole or
        floating-point numbers are taken, in the units of those, and PIL images of such modes.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB; where `deep`, uint16 or float32 as well.

    Raises
    ------
    ImageError
        Another type or shape, or a size out of bounds. The message says how to convert it.
    """
    if is_pil(image):
        return check_array(_from_pil(image, deep=deep), deep=deep)
    if not isinstance(image, np.ndarray):
        raise ImageError(_of_another_kind(image))
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if deep and is_image and image.dtype.kind in "iuf" and image.size:
        image = _deep(image)
    elif image.dtype != np.uint8 or not is_image:
        raise ImageError(
            "An image array is uint8 in 0..255 with shape (H, W), (H, W, 1), (H, W, 3) or "
            f"(H, W, 4), RGB. Received {image.dtype} of shape {image.shape}"
            + (_advice(image) if image.size else ".")
        )
    check_size(image.shape[:2], "The array")
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _deep(image: NDArray[Any]) -> Pixels:
    """As uint8, uint16 or float32, in the byte order of the machine."""
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        return image.astype(image.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        out = image.astype(np.float32)
    if not np.isfinite(out).all():
        raise ImageError(
            f"The array holds {int((~np.isfinite(out)).sum())} values that are not numbers (NaN, "
            "infinite, or beyond what 32 bits hold). Replace these first."
        )
    return out


def is_pil(image: Any) -> bool:
    """Whether this is an image of Pillow, which need not be installed."""
    return any(f"{c.__module__}.{c.__name__}" == "PIL.Image.Image" for c in type(image).__mro__)


def is_image(item: Any) -> bool:
    """Whether an item of a list is an image in memory, and not a path."""
    return isinstance(item, np.ndarray) or is_pil(item)


def _from_pil(image: Any, *, deep: bool) -> Pixels:
    is_deep = deep and image.mode in _DEEP_PIL_MODES
    if image.mode not in _PIL_MODES and not is_deep:
        raise ImageError(
            f"A PIL image has 8 bits a channel, gray or colour. Received the mode {image.mode!r}. "
            "Hand over its pixels, RGB or gray uint8: np.asarray(image), brought to 8 bits with "
            "the same scale for all images"
        )
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        pixels = np.asarray(image if is_deep else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # cut off, closed, damaged
        raise ImageError(
            f"The PIL image cannot be decoded ({error}). Open its file again, or copy it from "
            "where it came from."
        ) from error
    return turned(pixels, orientation if orientation in range(1, 9) else 1)


def _of_another_kind(image: Any) -> str:
    module = type(image).__module__.partition(".")[0]
    convert = {
        "torch": "image.detach().cpu().numpy(), then RGB uint8 of shape (H, W, 3)",
        "tensorflow": "image.numpy(), then RGB uint8 of shape (H, W, 3)",
        "jax": "np.asarray(image), then RGB uint8 of shape (H, W, 3)",
        "jaxlib": "np.asarray(image), then RGB uint8 of shape (H, W, 3)",
        "cupy": "image.get(), then RGB uint8 of shape (H, W, 3)",
    }.get(module)
    if isinstance(image, (bytes, bytearray)):
        convert = (
            "np.asarray(PIL.Image.open(io.BytesIO(data)).convert('RGB')) if these are the bytes of "
            "an image file, or os.fsdecode(path) if they are a path"
        )
    elif convert is None:
        convert = "np.asarray(image), and see that it is RGB uint8 of shape (H, W, 3)"
    what = f"{type(image).__module__}.{type(image).__name__}".removeprefix("builtins.")
    return (
        f"An image is a path, a numpy array or a PIL image. Received {what}. "
        f"Convert it with: {convert}"
    )


def _advice(image: NDArray[Any]) -> str:
    """How to convert an array, by its type, range and shape; the end of a sentence."""
    if image.ndim not in (2, 3, 4):
        return ". Pass one image, or a list of them."
    channels = (1, 3, 4)
    if image.ndim > 2 and image.shape[-3] in channels and image.shape[-1] not in channels:
        return ", channels first. Convert it with: np.moveaxis(image, -3, -1)"
    if image.dtype == np.uint8:
        return ". Pass one image, or a list of them."
    if image.dtype == bool:
        return ". Convert it with: image.astype(np.uint8) * 255"
    if image.dtype.kind not in "fiu":
        return ". Pass numbers."
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        return ", with values that are not finite (NaN or infinite). Replace these first."
    low, high = float(image.min()), float(image.max())
    same = "the same scale for all images"
    if image.dtype.kind == "f":
        if low >= 0 and high <= 1:
            return (
                f", values 0 to 1 ({same}). Convert it with: (image * 255).round().astype(np.uint8)"
            )
        if low >= -1 and high <= 1:
            return (
                f", values -1 to 1 ({same}). "
                "Convert it with: ((image + 1) * 127.5).round().astype(np.uint8)"
            )
    if image.dtype.kind in "iu" and low >= 0 and high <= 1:
        return ", values 0 and 1. Convert it with: (image * 255).astype(np.uint8)"
    if low >= 0 and high <= 255:
        rounded = "image.round()" if image.dtype.kind == "f" else "image"
        return f", values 0 to 255. Convert it with: {rounded}.astype(np.uint8)"
    if low >= 0 and image.dtype.kind in "iu" and high < 2**16:
        bits = next(bits for bits in (10, 12, 14, 16) if high < 2**bits)
        return (
            f", largest value {high:.0f}, which looks like {bits} bits ({same}). "
            f"Convert it with: (image >> {bits - 8}).astype(np.uint8)"
        )
    return (
        f", values {low:g} to {high:g}. Choose one range low..high for all images, and clip to it. "
        "Convert it with: (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)"
    )

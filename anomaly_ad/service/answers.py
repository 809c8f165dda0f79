"""One image file -> the answer that a client gets. Runs in worker threads."""

from __future__ import annotations

import base64
from typing import Any

from ..drawing import pictures as drawing
from ..errors import ImageError, ImageTooLargeError
from ..images import decode_image
from ..inspection import Inspector, Prediction
from ..inspection.output import encode_picture
from .models import Served
from .refusal import Refusal


def answer(
    served: Served,
    name: str,
    data: bytes | bytearray,
    *,
    threshold: float,
    heatmap: bool,
    max_pixels: int,
) -> dict[str, Any]:
    """Inspect one image file.

    Parameters
    ----------
    served : Served
        The model.
    name : str
        What the client calls the file.
    data : bytes
        The file.
    threshold : float
        Score above which it is anomalous.
    heatmap : bool
        Whether the answer holds the heatmap.
    max_pixels : int
        More are not decoded.

    Returns
    -------
    dict
        See README, "Serve".

    Raises
    ------
    Refusal
        413 for too many pixels, 422 for a file that is no image that can be inspected.
    """
    try:
        image = decode_image(bytes(data), repr(name) if name else "The image", max_pixels)
    except ImageTooLargeError as error:
        raise Refusal(413, str(error)) from error
    except ImageError as error:
        raise Refusal(422, str(error)) from error
    inspector = Inspector(served.stored, threshold=threshold, keep_maps=heatmap)
    prediction = inspector.inspect(image)
    if prediction.error is not None:
        raise Refusal(422, f"{name!r} cannot be judged: {prediction.error}.")
    found = {
        "name": name,
        "model": served.name,
        "digest": served.stored.digest,
        "image_size": list(image.shape[:2]),
        "is_anomalous": prediction.is_anomalous,
        "confidence": prediction.score,
        "score": prediction.score,
        "raw_score": prediction.raw_score,
        "threshold": prediction.threshold,
        "boxes": prediction.boxes.tolist(),
    }
    if heatmap:
        found["heatmap"] = _heatmap(prediction, inspector)
    return found


def _heatmap(prediction: Prediction, inspector: Inspector) -> str | None:
    if prediction.anomaly_map is None or prediction.image_size is None:
        return None
    colours = drawing.colours(prediction.anomaly_map)
    overlay = inspector.framing.map_to_original(colours, prediction.image_size)
    return base64.b64encode(encode_picture(overlay, ".png")).decode("ascii")

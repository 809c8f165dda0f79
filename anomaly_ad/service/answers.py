"""One image file -> the answer that a client gets. Runs in worker threads."""

from __future__ import annotations

import base64
from collections.abc import Callable

from ..drawing import pictures as drawing
from ..errors import ImageError, ImageTooLargeError
from ..images import decode_image
from ..inspection import Inspector
from ..inspection.output import encode_picture
from .models import Served
from .schema import Refusal, Verdict


def answer(
    served: Served,
    threshold: float,
    heatmap: bool,
    max_pixels: int,
    name: str,
    read: Callable[[], bytes],
) -> Verdict:
    """Inspect what `read` gives, the bytes of the file that the client calls `name`.

    Refusal 413 for too many pixels, 422 for a file that cannot be inspected; and those of `read`.
    """
    try:
        image = decode_image(read(), repr(name) if name else "The image", max_pixels)
    except ImageTooLargeError as error:
        raise Refusal(413, str(error)) from error
    except ImageError as error:
        raise Refusal(422, str(error)) from error
    inspector = Inspector(served.stored, threshold=threshold, keep_maps=heatmap)
    found = inspector.inspect(image)
    if found.error is not None:
        raise Refusal(422, f"{name!r} cannot be inspected: {found.error}.")
    verdict = {
        "name": name,
        "model": served.name,
        "digest": served.stored.digest,
        "image_size": image.shape[:2],
        "is_anomalous": found.is_anomalous,
        "confidence": found.score,
        "score": found.score,
        "raw_score": found.raw_score,
        "threshold": found.threshold,
        "boxes": found.boxes.tolist(),
    }
    if heatmap:
        verdict["heatmap"] = None
        if found.anomaly_map is not None:
            colours = drawing.colours(found.anomaly_map)
            overlay = inspector.framing.map_to_original(colours, image.shape[:2])
            verdict["heatmap"] = base64.b64encode(encode_picture(overlay, ".png"))
    return Verdict.model_validate(verdict)

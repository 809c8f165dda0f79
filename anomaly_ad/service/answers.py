"""One image file -> the answer that a client gets. Runs in worker threads."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np

from ..drawing import pictures as drawing
from ..errors import ImageError, ImageTooLargeError
from ..images import Image, Photograph
from ..inspection import Inspector
from ..inspection.output import encode_picture
from ..inspection.pages import fitted, packed
from .models import Served
from .schema import Refusal, Verdict


def answer(
    served: Served,
    threshold: float,
    heatmap: bool,
    anomaly_map: bool,
    max_pixels: int,
    name: str,
    read: Callable[[], bytes],
) -> Verdict:
    """Inspect what `read` gives, the bytes of the file that the client calls `name`.

    Refusal 413 for too many pixels, 422 for a file that cannot be inspected; and those of `read`.
    """
    inspector = Inspector(served.stored, threshold=threshold, keep_maps=heatmap)
    framing, title = inspector.framing, repr(name) if name else "The image"
    try:
        photo = Photograph.decode(read(), title, framing, max_pixels)
        if photo.n_pages > 1:
            raise Refusal(
                422,
                f"{title} has {photo.n_pages} pages. Send each page as an image of its own.",
            )
        decision = inspector.inspect(photo)
    except ImageTooLargeError as error:
        raise Refusal(413, str(error)) from error
    except ImageError as error:
        raise Refusal(422, str(error)) from error
    found = decision.prediction
    if found.error is not None:
        raise Refusal(422, f"{name!r} cannot be inspected: {found.error}.")
    verdict = found.answer(name, served.name, served.stored.digest)
    taken = decision.taken
    if heatmap:
        verdict["heatmap"] = None
        if decision.marks is not None and found.anomaly_map is not None and taken is not None:
            colours = drawing.overlaid(found.anomaly_map, decision.marks, taken, threshold)
            verdict["heatmap"] = _png(colours)
    if anomaly_map:
        verdict["anomaly_map"] = None
        limit = served.stored.manifest.calibration.map
        if limit is not None and taken is not None:
            levels = packed(decision.outputs["anomaly_map"], limit)
            levels = taken.map_to_original(levels, fitted(photo.size, max(framing.map_size)))
            verdict["anomaly_map"] = _png(np.repeat(levels[..., None], 3, axis=2))
    return Verdict.model_validate(verdict)


def _png(picture: Image) -> bytes:
    return base64.b64encode(encode_picture(picture, ".png"))

"""What an exported file says of itself: all that a program needs that has nothing but the file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..errors import AnomalyADError
from ..images import Framing, image_digest
from ..model import LIMIT_SCORE, StoredModel

FORMAT = 1
KEY = "anomaly_ad"
CLASSES = ["good", "anomalous"]
_SHOWN = 16  # views of a vector
_LARGEST = 4096  # pixels of its longer side


def metadata_of(stored: StoredModel) -> dict[str, Any]:
    """Plain values: the model, its limits, and what lies outside its graph.

    Returns
    -------
    dict
        "format", "producer", "model" (digest), "method", "precision" and "device" (in and on
        which the limits hold), "class_names", "limits" ("image" and "map": "median" and "limit" in
        raw units; "promise"; "score": how a raw score becomes one in [0, 1)), "patch_size" in
        pixels of the input, "framing" (as in the manifest), "photograph_size" (height, width;
        None for any), "outside_the_graph", see `model.outside`, and "vectors", see `vectors`.
    """
    manifest = stored.manifest
    plan, calibration = manifest.plan, manifest.calibration
    limits = {"image": calibration.image, "map": calibration.map}
    return {
        "format": FORMAT,
        "producer": f"anomaly_ad {__version__}",
        "model": stored.digest,
        "method": plan.method,
        "precision": plan.precision,
        "device": calibration.device,
        "class_names": CLASSES,
        "limits": {
            **{
                name: None if one is None else {"median": one.median, "limit": one.limit}
                for name, one in limits.items()
            },
            "promise": calibration.promise,
            "score": "t = (raw - median) / (limit - median); 0 for t <= 0, "
            f"{LIMIT_SCORE} t for t <= 1, 1 - 0.2 / (1 + 4 (t - 1)) above; anomalous above "
            f"{LIMIT_SCORE}, that is raw > limit",
        },
        "patch_size": plan.patch_size,
        "framing": plan.to_dict()["spec"],
        "photograph_size": plan.framing.photograph_size,
        "outside_the_graph": manifest.to_dict()["outside_the_graph"],
        "vectors": vectors(plan.framing),
    }


def vectors(framing: Framing) -> list[dict[str, Any]]:
    """A photograph that a formula gives, and what the model takes of it: to test one's own code by.

    Returns
    -------
    list of dict
        "photograph": (height, width); "formula" of its values; "views": how many there are;
        "sha256": the first 16 digits for each view, at most 16, of its bytes, (height, width,
        channels); "first_pixels": the first three of the first view. Empty where the framing finds
        nothing in such a photograph, as where it looks for a part.
    """
    size = _size_for(framing)
    try:
        taken = framing.take(pattern(*size))
    except AnomalyADError:
        return []
    some = [np.asarray(view) for view, _ in zip(taken.views, range(_SHOWN), strict=False)]
    return [
        {
            "photograph": [*size],
            "formula": "value(y, x, c) = (7 x + 13 y + 29 c + (x y) mod 31) mod 256; c: R, G, B",
            "views": len(taken.views),
            "sha256": [image_digest(view[None]) for view in some],
            "first_pixels": some[0].reshape(-1, some[0].shape[-1])[:3].tolist(),
        }
    ]


def pattern(height: int, width: int) -> NDArray[np.uint8]:
    """The photograph of the vectors, uint8 (height, width, 3)."""
    y, x, c = np.ogrid[:height, :width, :3]
    return ((7 * x + 13 * y + 29 * c + (x * y) % 31) % 256).astype(np.uint8)


def _size_for(framing: Framing) -> tuple[int, int]:
    """(height, width) of photographs like those of the training, as far as the model knows."""
    if (known := framing.photograph_size) is not None:
        return known
    height, width = framing.size
    return min(3 * height // 2, _LARGEST), min(3 * width // 2, _LARGEST)

"""Stage 6, prediction: what is said of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnomalyADError
from .regions import Region


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of one image. It holds no image.

    Parameters
    ----------
    path : str or None
        The image file, or the name of a pair (name, image); None for an array without a name.
    image_size : (int, int) or None
        (height, width) of the original in pixels; None if it could not be read.
    score : float or None
        In [0, 1): 0 is a typical good image, 0.8 the decision limit.
    raw_score : float or None
        The detector's own unit, for ranking and metrics.
    threshold : float
        The score that the verdict was asked for. The comparison is made in raw units.
    is_anomalous : bool or None
        Whether the image exceeds the threshold.
    anomaly_map : ndarray of float32, shape (h, w), or None
        Calibrated to [0, 1), at the scale of the model's input or, of tiles, smaller; 0.8 is the
        largest value of good images. None for methods without a map, and for the elements of a
        list unless maps are asked for.
    boxes : ndarray of int32, shape (N, 4)
        xyxy in pixels of the original, x2 and y2 exclusive: the patches that deviate. (0, 4) for
        an image that is not anomalous, and for methods without a map.
    error : str or None
        What went wrong with this file; then there is no score and no verdict.
    regions : tuple of Region
        The connected regions that deviate, the highest peak first: at least one of an image that
        is anomalous, unless the method has no map; none of one that is good. See `regions.marked`.
    reason : str or None
        Why the image is anomalous without the model having seen it: the part cannot be found, or
        not be brought into pose. Then there are neither regions nor a map, and the score is the
        highest there is.
    """

    path: str | None
    image_size: tuple[int, int] | None
    score: float | None
    raw_score: float | None
    threshold: float
    is_anomalous: bool | None
    anomaly_map: NDArray[np.float32] | None
    boxes: NDArray[np.int32]
    error: str | None = None
    regions: tuple[Region, ...] = ()
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.boxes.dtype != np.int32 or self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise AnomalyADError(
                f"boxes is int32 of shape (N, 4). Received {self.boxes.dtype} {self.boxes.shape}."
            )
        if not 0 <= self.threshold <= 1:
            raise AnomalyADError(f"threshold is in [0, 1]. Received: {self.threshold!r}.")
        measured = (self.score, self.raw_score, self.is_anomalous, self.image_size)
        if self.error is not None:
            if any(value is not None for value in measured) or self.anomaly_map is not None:
                raise AnomalyADError("A prediction with an error has no score and no verdict.")
            return
        if self.reason is not None and not self.is_anomalous:
            raise AnomalyADError("A prediction with a reason is anomalous.")
        if any(value is None for value in measured):
            raise AnomalyADError("A prediction without an error has a score and a verdict.")
        assert self.score is not None and self.raw_score is not None
        if not 0 <= self.score < 1 or not np.isfinite(self.raw_score):
            raise AnomalyADError(
                f"score is in [0, 1) and raw_score finite. Received: {self.score!r} and "
                f"{self.raw_score!r}."
            )

    @classmethod
    def failed(cls, path: str | None, threshold: float, error: str) -> Prediction:
        """The record of an image that could not be inspected."""
        return cls(path, None, None, None, threshold, None, None, np.empty((0, 4), np.int32), error)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prediction:
        """The inverse of `to_dict`, without a map; keys that it does not know are passed over.

        Raises
        ------
        AnomalyADError, KeyError, TypeError, ValueError
            These are not the values of a prediction.
        """
        size = values["image_size"]
        return cls(
            path=values["path"],
            image_size=None if size is None else (int(size[0]), int(size[1])),
            score=values["score"],
            raw_score=values["raw_score"],
            threshold=values["threshold"],
            is_anomalous=values["is_anomalous"],
            anomaly_map=None,
            boxes=np.array(values["boxes"], np.int32).reshape(-1, 4),
            error=values["error"],
            regions=tuple(Region.from_dict(region) for region in values.get("regions", ())),
            reason=values.get("reason"),
        )

    def answer(self, name: str, model: str, digest: str) -> dict[str, Any]:
        """What another program gets of it, from the service or a webhook; no error.

        Parameters
        ----------
        name : str
            What the other program calls the image.
        model, digest : str
            Name of the model, and the digest of its directory.
        """
        values = self.to_dict()
        kept = ("image_size", "is_anomalous", "score", "raw_score", "threshold", "boxes", "regions")
        about = {"name": name, "model": model, "digest": digest, "confidence": self.score}
        return about | {name: values[name] for name in (*kept, "reason")}

    def to_dict(self) -> dict[str, Any]:
        """As plain values for a record, boxes as lists, without the map."""
        return {
            "path": self.path,
            "image_size": None if self.image_size is None else list(self.image_size),
            "score": self.score,
            "raw_score": self.raw_score,
            "threshold": self.threshold,
            "is_anomalous": self.is_anomalous,
            "n_boxes": len(self.boxes),
            "boxes": self.boxes.tolist(),
            "regions": [region.to_dict() for region in self.regions],
            "error": self.error,
            "reason": self.reason,
        }

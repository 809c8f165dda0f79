"""Good images that look odd: those with the highest unseen scores, and what they do to the limit.

Nothing is left out by itself. A defect among the good images and a rare kind of good part look the
same in the scores; a person can tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ModelError
from ..model import MOST_MAPS, Calibration, GoodScores, StoredModel

_ODD = 3.5  # robust standard deviations, as Iglewicz and Hoaglin have it
_TO_SIGMA = 1.4826  # of a median absolute deviation, for a Gaussian
_NOTICEABLE = 0.1  # of the limit's distance from the median


@dataclass(frozen=True, eq=False)
class GoodImage:
    """A good image of the training, and its part in the limit.

    Parameters
    ----------
    name : str
        Its path within the folder of the training.
    path : Path
        The file, as it was when the model was trained.
    digest : str
        Of what the model took, see `images.image_digest`.
    raw_score : float
        Unseen: by a model that had not learnt from it.
    is_odd : bool
        Whether the score stands out from the others.
    limit_without : float or None
        The limit that the other images give; None where too few are left.
    index : int
        Its place among the scores.
    anomaly_map : ndarray of float32, shape (h, w), or None
        Unseen and raw, with sides of up to 128; None for a method without maps.
    """

    name: str
    path: Path
    digest: str
    raw_score: float
    is_odd: bool
    limit_without: float | None
    index: int
    anomaly_map: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class OddImages:
    """The good images with the highest unseen scores. Its `str` is a line where they matter.

    Parameters
    ----------
    good : GoodScores
        Unseen scores of all good images.
    images : tuple of GoodImage
        The highest scores first.
    n_odd : int
        How many of all stand out.
    rate : float
        The false alarm rate that limits are for.
    limit, median : float
        What all images give, in raw units.
    without : Calibration or None
        What the images give that do not stand out; None where too few are left.
    """

    good: GoodScores
    images: tuple[GoodImage, ...]
    n_odd: int
    rate: float
    limit: float
    median: float
    without: Calibration | None

    @property
    def limit_without(self) -> float | None:
        """The limit without the images that stand out, in raw units."""
        return None if self.without is None else self.without.image.limit

    @property
    def set_the_limit(self) -> bool:
        """Whether the limit would be noticeably lower without the images that stand out."""
        if not self.n_odd or self.limit_without is None:
            return False
        return self.limit - self.limit_without > _NOTICEABLE * (self.limit - self.median)

    def __str__(self) -> str:
        if not self.set_the_limit:
            return ""
        look, without = "look odd and set the limit", "them it"
        if self.n_odd == 1:
            look, without = "looks odd and sets the limit", "it the limit"
        return (
            f"{self.n_odd} of {len(self.good)} good images {look}. Without {without} would fall "
            f"from {self.limit:.3g} to {self.limit_without:.3g}."
        )


def odd_images(stored: StoredModel) -> OddImages:
    """The good images of a model's training with the highest unseen scores. Reads no images.

    An image stands out where the logarithm of its score (the score itself where some are not
    positive) lies more than 3.5 robust standard deviations, by the median absolute deviation,
    above the median.

    Raises
    ------
    ModelError
        The model was saved by a version that did not keep names and scores of its images.

    References
    ----------
    Iglewicz, Hoaglin 1993, How to detect and handle outliers, ASQC.
    """
    good = stored.good_scores(of_training=True)
    places = _places(stored, len(good))
    calibration = stored.manifest.calibration
    plan = stored.manifest.plan
    rate = calibration.image.asked_rate if calibration.has_rate else plan.false_alarm_rate
    image = good.calibration(rate).image
    odd = stand_out(good.scores)

    def without(indices: ArrayLike) -> Calibration | None:
        kept = np.delete(np.arange(len(good)), np.asarray(indices, np.intp))
        return good.subset(kept).calibration(rate) if len(kept) > 1 else None

    highest = np.argsort(-good.scores, kind="stable")[:MOST_MAPS].tolist()
    images = tuple(
        GoodImage(
            name=places[index][0],
            path=places[index][1],
            digest=places[index][2],
            raw_score=float(good.scores[index]),
            is_odd=bool(odd[index]),
            limit_without=None if (rest := without(index)) is None else rest.image.limit,
            index=index,
            anomaly_map=good.maps.get(index),
        )
        for index in highest
    )
    return OddImages(
        good,
        images,
        int(odd.sum()),
        rate,
        image.limit,
        image.median,
        without(np.flatnonzero(odd)),
    )


def stand_out(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the scores of good images are much higher than the others; shape (n,)."""
    values = np.log(scores) if (scores > 0).all() else scores
    distance = values - np.median(values)
    out: NDArray[np.bool_] = distance > _ODD * _TO_SIGMA * np.median(np.abs(distance))
    return out


def _places(stored: StoredModel, count: int) -> list[tuple[str, Path, str]]:
    """Name, file and digest of each image that has an unseen score, in the order of the scores."""
    training = stored.manifest.training
    found = stored.manifest.places
    calibrated = training.get("calibrated_on")
    try:
        places = found if calibrated is None else [found[index] for index in calibrated]
    except (IndexError, TypeError):
        places = []
    if len(places) != count:
        raise ModelError(
            f"The model in {stored.directory} was saved by a version that did not keep the names "
            "of its images. Train it again to look at them."
        )
    return places

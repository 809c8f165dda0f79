"""Calibration: the detector's raw score -> a score in [0, 1] with a stated error rate.

From good images that the fit has not seen, a median and a limit are taken. The score says where an
image stands between and beyond them: 0 is a typical good image, 0.8 the decision limit, 1 is never
reached. Nothing is ever normalised by the image or the test set at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, OptionError

# Up to so many folds the fits without a fold have seen clearly fewer images than the final one.
FEW_FOLDS = 10
LIMIT_SCORE = 0.8  # the score of an image exactly at the limit; the default threshold
_LARGEST = 1e30  # of a limit, in raw units
_SMALLEST_RATE = 1e-9
# Names in the state of a model.
SCORES, MAXIMA, RAISED = "held_out_scores", "held_out_maxima", "held_out_raised"
GROUPS = "held_out_groups"
MAPS, MAPPED = "held_out_maps", "held_out_mapped"
HELD_OUT = (SCORES, MAXIMA, RAISED, GROUPS, MAPS, MAPPED)
MOST_MAPS = 24  # of the good images with the highest scores, which a person may look at
SPAN_FLOOR = 1e-3  # smallest limit - median, relative to the median


@dataclass(frozen=True)
class Limit:
    """Where good ends, in the detector's own unit.

    Parameters
    ----------
    median, limit : float
        Median and limit of the raw values of unseen good images; ``limit > median``.
    n_images : int
        How many images they come from.
    asked_rate : float
        The false alarm rate that was asked for, in (0, 1).
    stated_rate : float
        The rate that `n_images` support: a further good image exceeds the limit with at most this
        probability, if it is exchangeable with them.
    n_groups : int or None
        How many groups the images are of, such as photographs of one part, if they are fewer: then
        it is groups that support the rate, and the image is one of a further group.
    """

    median: float
    limit: float
    n_images: int
    asked_rate: float
    stated_rate: float
    n_groups: int | None = None

    def __post_init__(self) -> None:
        values = (self.median, self.limit, self.asked_rate, self.stated_rate)
        if not all(isinstance(value, (int, float)) and abs(value) < 1e300 for value in values):
            raise DataError(f"Limits are finite numbers. Received: {self}.")
        if not self.median < self.limit:
            raise DataError(f"The limit must lie above the median. Received: {self}.")

    @classmethod
    def from_good(cls, raw: ArrayLike, rate: float, groups: NDArray[np.intp] | None = None) -> Self:
        """Take the limit from raw values of good images that the fit has not seen.

        Split conformal prediction: with the values in ascending order, the limit is number
        ``ceil((n + 1) (1 - rate))``. A further value of the same distribution exceeds it with a
        probability of at most `rate`. Where n is too small for that (n < 1 / rate - 1) the largest
        value is taken, and the rate that it supports, 1 / (n + 1), is stated. The distance from
        the median is at least `SPAN_FLOOR` times the median, so that images which are all alike
        do not make every speck of noise an alarm; a larger limit only lowers the rate.

        Groups take the place of images where images of one group resemble each other (hierarchical
        conformal prediction): of G groups each has the weight 1 / (G + 1), shared equally by its
        images, and the limit is the smallest value up to which the weights add up to 1 - `rate`.
        A further value of a further group exceeds it with a probability of at most `rate`.

        Parameters
        ----------
        raw : array_like of float, shape (n,)
            Finite values, n >= 2.
        rate : float
            The false alarm rate asked for, in (0, 1).
        groups : ndarray of int, shape (n,), optional
            The group of each, numbered from 0; None where each is by itself.

        References
        ----------
        Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World, section 2.2;
        Lei et al. 2018, JASA 113(523), algorithm 2;
        Lee, Barber, Willett 2023, Distribution-free inference with hierarchical data, arXiv
        2306.06342 (HCP).
        """
        values = np.asarray(raw, np.float64)
        if values.size < 2 or not np.isfinite(values).all():
            raise DataError(
                "A limit needs the finite raw scores of at least 2 good images that the fit has "
                f"not seen. Received {values.size}, of which {int(np.isfinite(values).sum())} "
                "are finite. Add good images."
            )
        check_rate(rate)
        rate = float(rate)
        sizes = np.ones(values.size, np.intp) if groups is None else np.bincount(groups)
        shares = 1 / (sizes if groups is None else sizes[groups])
        count = int(np.count_nonzero(sizes))
        order = np.lexsort((shares, values))
        # Rounded, so that thirds of a group add up to the whole.
        places = np.cumsum(shares[order]).round(9)
        # The small constant keeps a product that is whole from being rounded up to the next.
        rank = min(int(np.searchsorted(places, (count + 1) * (1 - rate) - 1e-9)), values.size - 1)
        median = float(np.median(values))
        span = max(float(values[order[rank]]) - median, SPAN_FLOOR * abs(median), 1e-9)
        stated = float(count + 1 - places[rank]) / (count + 1)
        n_groups = count if count < values.size else None
        return cls(median, median + span, values.size, rate, stated, n_groups)

    @property
    def needed(self) -> str:
        """What the asked rate takes, in words: "99 good images", or groups of them."""
        what = "good images" if self.n_groups is None else "groups of good images"
        return f"{images_needed(self.asked_rate)} {what}"

    def score(self, raw: ArrayLike) -> NDArray[np.floating]:
        """Raw values -> scores in [0, 1); monotone, continuous, 0.8 at the limit.

        With t = (raw - median) / (limit - median): 0 for t <= 0, 0.8 t for t <= 1, and
        1 - 0.2 / (1 + 4 (t - 1)) above, whose slope at the limit is the same from both sides.
        Computed and returned in float32 for a float32 array (a map), else in float64.
        """
        values = np.asarray(raw)
        if values.dtype != np.float32 or not values.ndim:
            values = values.astype(np.float64)
        number = values.dtype.type
        t = (values - number(self.median)) / number(self.limit - self.median)
        below = np.clip(t, 0, 1)
        above = np.maximum(t, 1)
        # 0.8 t + 0.2 - 0.2 / (4 t - 3), where either part is constant on the other's side
        rest = number(1 - LIMIT_SCORE)
        out = number(LIMIT_SCORE) * below + (rest - rest / (4 * above - 3))
        return np.minimum(out, np.nextafter(number(1), number(0)))

    def raw(self, threshold: float) -> float:
        """A threshold in [0, 1] -> raw units; the inverse of `score`.

        Raw values are compared with it by ``>``. It is exactly `limit` for 0.8 and infinite for 1.
        """
        check_threshold(threshold)
        if threshold == LIMIT_SCORE:
            return self.limit
        return self.median + float(standing(threshold)) * (self.limit - self.median)


@dataclass(frozen=True)
class Calibration:
    """Both limits of a model, from the same images.

    Parameters
    ----------
    image : Limit
        For the verdict: of the image scores.
    map : Limit or None
        For boxes and colours: of the maps' largest values. None for a method without maps.
    record : dict
        Where the limits come from, with sources and counts; empty for those of the training.
    n_kept : int or None
        How many images a person kept for the training that the limits come from; None where nobody
        excluded any.
    """

    image: Limit
    map: Limit | None
    record: dict[str, Any] = field(default_factory=dict)
    n_kept: int | None = None

    @property
    def has_rate(self) -> bool:
        """Whether the limits were taken for a false alarm rate."""
        return self.record.get("by", "good images") == "good images"

    @property
    def stated_rate(self) -> float | None:
        """The share of good parts that may exceed the limit; None where no rate is promised."""
        return self.image.stated_rate if self.has_rate else None

    @property
    def promise(self) -> str:
        """What may be said of the limit, as the end of a sentence. Nothing else words it."""
        if self.stated_rate is None:
            return f"no false alarm rate is promised for it ({self.record.get('by')})"
        image = self.image
        groups = f" ({image.n_images} images of {image.n_groups} groups)" if image.n_groups else ""
        these = "these" if self.n_kept is None else f"the {self.n_kept} kept"
        return f"at most {self.stated_rate:.1%} of good parts like {these} exceed it{groups}"

    @property
    def device(self) -> str:
        """The kind of device that the scores behind the limits come from."""
        return str(self.record.get("device", "CPU"))

    @property
    def good_source(self) -> str | None:
        """Where the good images are from that limits for a rate come from; None for the training.

        A limit by hand or from labelled images leaves them as they were.
        """
        if self.record.get("by") != "good images":
            source = self.record.get("good_source")
        else:
            source = self.record.get("source") if self.digests else None
        return None if source is None else str(source)

    @property
    def digests(self) -> frozenset[str]:
        """Of the images that set the limits, apart from those of the training."""
        return frozenset(self.record.get("digests", ()))

    @classmethod
    def from_good(
        cls,
        scores: ArrayLike,
        map_maxima: ArrayLike | None,
        rate: float,
        groups: NDArray[np.intp] | None = None,
    ) -> Self:
        """Both limits from the raw scores and the maps' maxima of the same unseen good images."""
        maxima = None if map_maxima is None else Limit.from_good(map_maxima, rate, groups)
        return cls(Limit.from_good(scores, rate, groups), maxima)

    def moved(self, limit: float, good: ArrayLike, record: dict[str, Any]) -> Self:
        """The same with another limit of the image scores; medians stay.

        The limit of the maps moves in proportion, as both do with a threshold: its distance from
        its median grows by the same factor. The stated rate is the one that holds for the good
        images: (k + 1) / (n + 1), if k of n exceed the limit.

        Parameters
        ----------
        limit : float
            In raw units, above the median.
        good : array_like of float, shape (n,)
            Raw scores of good images that the fit has not seen.
        record : dict
            Where it comes from.

        Raises
        ------
        DataError
            The limit is not a finite number above the median.
        """
        image = self.image
        if not math.isfinite(limit) or abs(limit) > _LARGEST:
            raise DataError(f"A limit is a finite number. Received: {limit!r}.")
        if limit <= image.median:
            raise DataError(
                f"A limit of {limit:.6g} is not above the score of a typical good image, "
                f"{image.median:.6g}: half of all good parts would be rejected. Choose a higher "
                "one."
            )
        scores = np.asarray(good, np.float64)
        rate = (int((scores > limit).sum()) + 1) / (len(scores) + 1)
        rate = min(rate, 1 - 1e-9)
        factor = (limit - image.median) / (image.limit - image.median)
        maxima = self.map
        if maxima is not None:
            height = maxima.median + factor * (maxima.limit - maxima.median)
            maxima = Limit(maxima.median, height, len(scores), rate, rate)
        return type(self)(
            Limit(image.median, float(limit), len(scores), rate, rate), maxima, record
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, for the manifest."""
        values = asdict(self)
        for limit in (values["image"], values["map"] or {}):
            if limit.get("n_groups", 0) is None:
                del limit["n_groups"]  # as it was written before there were groups
        if self.n_kept is None:
            del values["n_kept"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; raises TypeError, KeyError or DataError for anything else."""
        maxima, record = values["map"], values.get("record", {})
        if not isinstance(record, dict):
            raise TypeError(f"the record of a calibration is a dict, not {record!r}")
        n_kept = values.get("n_kept")
        if n_kept is not None and not isinstance(n_kept, int):
            raise TypeError(f"the images kept are counted, not {n_kept!r}")
        image, map_ = Limit(**values["image"]), None if maxima is None else Limit(**maxima)
        return cls(image, map_, record, n_kept)


@dataclass(frozen=True)
class GoodScores:
    """Raw scores of good images that no fit has seen: what limits are taken from.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
    maxima : ndarray of float64, shape (n,), or None
        Of their maps; None for a method without maps.
    raised : (float, float)
        By how much the limits take scores and maxima for higher, since the model's arithmetic may.
    cross_fitted : bool
        Whether each was scored by a model fitted on clearly fewer images than the final one, at
        most `FEW_FOLDS` folds: such scores are a little higher than those of further good images.
    digests : tuple of str
        Of the images, see `images.image_digest`, where these are not those of the training.
    left_out : int
        Images that were left out, since training has seen them or they are copies.
    groups : ndarray of int, shape (n,), or None
        The group of each, numbered from 0; None where each is by itself.
    maps : dict of int to ndarray of float32, shape (h, w)
        Maps of up to `MOST_MAPS` of those with the highest scores, reduced, by their place.
    n_kept : int or None
        As in `Calibration`.
    """

    scores: NDArray[np.float64]
    maxima: NDArray[np.float64] | None
    raised: tuple[float, float] = (0.0, 0.0)
    cross_fitted: bool = False
    digests: tuple[str, ...] = ()
    left_out: int = 0
    groups: NDArray[np.intp] | None = None
    maps: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    n_kept: int | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def with_margin(self) -> Self:
        """The same as the model's arithmetic may give them, at most."""
        maxima = None if self.maxima is None else self.maxima + self.raised[1]
        scores = self.scores + self.raised[0]
        return replace(self, scores=scores, maxima=maxima, raised=(0.0, 0.0))

    def subset(self, kept: NDArray[np.intp]) -> Self:
        """Those at the places `kept`, without their maps."""
        return replace(
            self,
            scores=self.scores[kept],
            maxima=None if self.maxima is None else self.maxima[kept],
            groups=None if self.groups is None else self.groups[kept],
            maps={},
        )

    def joined(self, other: Self) -> Self:
        """These and further ones."""
        maxima = None
        if self.maxima is not None and other.maxima is not None:
            maxima = np.concatenate([self.maxima, other.maxima])
        scores = np.concatenate([self.scores, other.scores])
        maps = {**self.maps, **{len(self) + index: map_ for index, map_ in other.maps.items()}}
        highest = sorted(maps, key=lambda index: scores[index])[-MOST_MAPS:]
        return replace(
            self,
            scores=scores,
            maxima=maxima,
            groups=self._joined_groups(other),
            maps={index: maps[index] for index in highest},
        )

    def _joined_groups(self, other: Self) -> NDArray[np.intp] | None:
        """Groups of both, which share none."""
        if self.groups is None and other.groups is None:
            return None
        one, two = (
            np.arange(len(some)) if some.groups is None else some.groups for some in (self, other)
        )
        return np.concatenate([one, two + one.max(initial=-1) + 1])

    def calibration(self, rate: float) -> Calibration:
        """Both limits for a false alarm rate."""
        raised = self.with_margin
        found = Calibration.from_good(raised.scores, raised.maxima, rate, self.groups)
        return replace(found, n_kept=self.n_kept)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As they are stored."""
        maxima = np.empty(0) if self.maxima is None else self.maxima
        more: dict[str, NDArray[Any]] = {} if self.groups is None else {GROUPS: self.groups}
        if self.maps:
            more[MAPPED], more[MAPS] = np.array([*self.maps]), np.stack([*self.maps.values()])
        return {SCORES: self.scores, MAXIMA: maxima, RAISED: np.array(self.raised), **more}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, cross_fitted: bool = False) -> Self:
        """The inverse of `arrays`.

        Raises
        ------
        KeyError
            There are none.
        ValueError
            They cannot be used.
        """
        scores, maxima = arrays[SCORES], arrays.get(MAXIMA, np.empty(0))
        raised = arrays.get(RAISED, np.zeros(2))
        if not len(scores) or not np.isfinite(scores).all() or len(maxima) not in (0, len(scores)):
            raise ValueError("its scores of good images cannot be used")
        groups = arrays.get(GROUPS)
        if groups is not None and (
            groups.shape != scores.shape or groups.dtype.kind != "i" or groups.min() < 0
        ):
            raise ValueError("its groups of good images cannot be used")
        pair = float(raised[0]), float(raised[1])
        return cls(
            scores,
            maxima if len(maxima) else None,
            pair,
            cross_fitted,
            groups=groups,
            maps=_maps(arrays, len(scores)),
        )


def _maps(arrays: Mapping[str, NDArray[Any]], count: int) -> dict[int, NDArray[np.float32]]:
    """The maps of some of `count` images, by their place; ValueError if they cannot be used."""
    if MAPS not in arrays:
        return {}
    maps, places = arrays[MAPS], arrays[MAPPED]
    if (
        maps.ndim != 3
        or maps.dtype != np.float32
        or not np.isfinite(maps).all()
        or places.shape != maps.shape[:1]
        or places.dtype.kind != "i"
        or not ((places >= 0) & (places < count)).all()
    ):
        raise ValueError("its maps of good images cannot be used")
    return dict(zip(places.tolist(), maps, strict=True))


def standing(score: ArrayLike) -> NDArray[np.float64]:
    """Scores in [0, 1] -> how far up from the median they stand, in multiples of the limit's way.

    t = (raw - median) / (limit - median), the inverse of `Limit.score`: 1 at the limit; infinite
    for 1.
    """
    values = np.asarray(score, np.float64)
    with np.errstate(divide="ignore"):
        above = 1 + ((1 - LIMIT_SCORE) / (1 - np.maximum(values, LIMIT_SCORE)) - 1) / 4
    return np.where(values <= LIMIT_SCORE, values / LIMIT_SCORE, above)


def images_needed(rate: float) -> int:
    """How many unseen good images support a false alarm rate: the least n with 1 / (n + 1) <= rate.

    >>> images_needed(0.01)
    99
    """
    return math.ceil(1 / rate - 1 - 1e-9)


def check_rate(rate: float) -> None:
    """Raise OptionError unless `rate` is a number in (0, 1)."""
    is_number = isinstance(rate, Real) and not isinstance(rate, bool)
    if not is_number or not _SMALLEST_RATE <= rate < 1:
        raise OptionError(
            "false_alarm_rate is the share of good parts that may be rejected, a number between "
            f"0 and 1 such as 0.01. Received: {rate!r}."
        )


def check_threshold(threshold: float) -> None:
    """Raise OptionError unless `threshold` is a number in [0, 1]."""
    is_number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:
        raise OptionError(
            "thresh is a score from 0 to 1; 0.8 is the decision limit, and lower is "
            f"stricter. Received: {threshold!r}."
        )

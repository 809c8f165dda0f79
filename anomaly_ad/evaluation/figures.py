"""How good a model is on labelled images: counts first, then metrics, each with its interval."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np

from ..errors import DataError, OptionError
from ..images.labelled import GOOD, LabelledImage, LabelledImages, read_fitting_mask
from ..images.sources import file_sources
from ..inspection import Inspected, Inspector, Observer, Prediction
from ..model import LIMIT_SCORE, StoredModel
from ..support import bar, printable
from .intervals import Estimate, Ranking, auroc, cases_needed, wilson
from .metrics import PixelCurves, Pixels
from .rates import AtRate, at_rates, next_step, table

# Figures of `Evaluation` that need images of both kinds, and masks.
_BOTH_KINDS = ("auroc", "average_precision", "f1", "best_f1", "best_f1_threshold")
_OF_PIXELS = ("pixel_auroc", "aupro")


@dataclass(frozen=True)
class KindOfDefect:
    """What was found of one kind of defect.

    Parameters
    ----------
    name : str
        Its folder, or its label.
    n_images, found : int
        Images with it, and how many of them are called anomalous.
    detection_rate : Estimate
        Their share; Wilson's interval.
    auroc : Estimate or None
        Of its image scores and those of the good images; DeLong's interval. None without good ones.
    pixel_auroc : float or None
        Of its masks' pixels and all good pixels.
    """

    name: str
    n_images: int
    found: int
    detection_rate: Estimate
    auroc: Estimate | None
    pixel_auroc: float | None


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on labelled images. Intervals are of 95 %.

    Parameters
    ----------
    source, layout : str
        Which images, and how they were recognised.
    model : str
        The model's digest.
    threshold : float
        Score above which an image is anomalous.
    stated_rate : float
        The false alarm rate that calibration stated for the threshold 0.8.
    has_rate : bool
        Whether the limit was taken for a rate; what is stated for another is an observation.
    n_good, n_defective : int
        Images that were inspected.
    n_learnt, n_calibrated : int
        How many of them were in the training, and have set the limit: figures of these are better
        than those of others.
    n_unmarked : int
        Masks of defective images that mark no pixel.
    n_outside, n_partly_outside : int
        Masks that lie wholly, or in part, outside the region that the model inspects. Figures of
        pixels count what lies inside; the images count with their verdicts.
    rejected, found : int
        Good and defective images that are called anomalous.
    rejection_rate, detection_rate : Estimate or None
        Shares of these; Wilson's intervals.
    auroc : Estimate or None
        Area under the ROC curve of the image scores; DeLong's interval.
    average_precision, f1, best_f1 : Estimate or None
        F1 at the threshold, and the largest over all; percentiles of resampled images.
    best_f1_threshold : float or None
        The threshold with the best F1, as a score in [0, 1].
    pixel_auroc, aupro : Estimate or None
        Of the maps, at the size of the masks; AUPRO up to a false positive rate of 0.3.
    kinds : tuple of KindOfDefect
        Kind by kind.
    omitted : dict of str to str
        Figures that are None, and why.
    warnings : tuple of str
        What the figures cannot tell.
    errors : dict of str to str
        Images that could not be inspected, and why; they are not counted.
    rates : tuple of AtRate
        Limits for some false alarm rates, and what they do with the same images.
    next_step : str or None
        How to set a limit that is better on these images, where there is one.
    """

    source: str
    layout: str
    model: str
    threshold: float
    stated_rate: float
    has_rate: bool
    n_good: int
    n_defective: int
    n_learnt: int
    n_calibrated: int
    n_unmarked: int
    n_outside: int
    n_partly_outside: int
    rejected: int
    found: int
    rejection_rate: Estimate | None
    detection_rate: Estimate | None
    auroc: Estimate | None
    average_precision: Estimate | None
    f1: Estimate | None
    best_f1: Estimate | None
    best_f1_threshold: float | None
    pixel_auroc: Estimate | None
    aupro: Estimate | None
    kinds: tuple[KindOfDefect, ...]
    omitted: dict[str, str]
    warnings: tuple[str, ...]
    errors: dict[str, str]
    rates: tuple[AtRate, ...]
    next_step: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return asdict(self)

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        lines = [f"{printable(self.source)}: {self.layout}"]
        rows = []
        if self.rejection_rate is not None:
            counts = f"{self.rejected} of {self.n_good} rejected"
            rows.append(("good parts", counts, self.rejection_rate.text(100, 1) + " %"))
        if self.detection_rate is not None:
            missed = self.n_defective - self.found
            counts = f"{self.found} of {self.n_defective} found, {missed} missed"
            rows.append(("defective parts", counts, self.detection_rate.text(100, 1) + " %"))
        for kind in self.kinds:
            rate = kind.detection_rate.text(100, 1) + " %"
            rows.append((f"  {printable(kind.name)}", f"{kind.found} of {kind.n_images}", rate))
        if self.errors:
            rows.append(("not inspected", str(len(self.errors)), "not counted"))
        named = {
            "image AUROC": self.auroc,
            "average precision": self.average_precision,
            f"F1 at {self.threshold:g}": self.f1,
            "best F1": self.best_f1,
            "pixel AUROC": self.pixel_auroc,
            "AUPRO to 0.3": self.aupro,
        }
        for name, estimate in named.items():
            if estimate is not None:
                note = ""
                if name == "best F1" and self.best_f1_threshold is not None:
                    # Rounded down, for a threshold of 1 would let everything pass.
                    note = f"at thresh {math.floor(1e6 * self.best_f1_threshold) / 1e6:g}"
                rows.append((name, estimate.text(), note))
        widths = [max(len(row[n]) for row in rows) for n in (0, 1)] if rows else [0, 0]
        lines += [f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows]
        reasons: dict[str, list[str]] = defaultdict(list)
        for name, reason in self.omitted.items():
            reasons[reason].append(name.replace("_", " "))
        lines += [f"Not computed: {', '.join(names)}: {why}." for why, names in reasons.items()]
        lines += [f"Warning: {warning}" for warning in self.warnings]
        lines += table(self.rates)
        lines += [printable(self.next_step)] if self.next_step else []
        lines += ["In brackets: 95 % intervals."]
        return "\n".join(lines)


def evaluate(
    stored: StoredModel,
    labelled: LabelledImages,
    *,
    threshold: float,
    seed: int = 0,
    observer: Observer | None = None,
) -> Evaluation:
    """Inspect labelled images and compare.

    Parameters
    ----------
    stored : StoredModel
        The model.
    labelled : LabelledImages
        The images.
    threshold : float
        Score in [0, 1] above which an image is anomalous.
    seed : int
        Of the resampling behind some intervals.
    observer : Observer, optional
        Sees each image and what is said of it.

    Raises
    ------
    DataError
        No image could be inspected, or a mask has another size than its image.
    OptionError
        The threshold or the seed cannot be used.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise OptionError(f"seed is a whole number from 0. Received: {seed!r}.")
    inspector = Inspector(stored, threshold=threshold, keep_maps=False)
    threshold = inspector.threshold
    has_region = inspector.framing.has_region
    known = stored.manifest.learnt, stored.manifest.calibration.digests
    tally = _Tally(*_pixel_curves(stored, labelled), has_region, *known)
    items = labelled.items
    by_source = dict(zip(file_sources([item.path for item in items]), items, strict=True))

    def look(one: Inspected) -> tuple[_Seen, Any]:
        item, taken = by_source[one.source], one.taken
        mask = pixels = None
        share = 0.0
        if tally.curves is not None or (tally.has_region and item.mask is not None):
            mask = None if item.mask is None else read_fitting_mask(item.mask, one.photo.size)
        if taken is not None:
            counted = taken.inspected()
            if mask is not None and counted is not None and mask.any():
                share = float((mask & ~counted).sum() / mask.sum())
            if tally.curves is not None and (mask is not None or not item.is_defective):
                raw = taken.map_to_original(one.outputs["anomaly_map"])
                pixels = tally.curves.measure(raw, mask, counted)
        seen = _Seen(pixels, share, one.digest)
        return seen, None if observer is None else observer.look(one, mask)

    with bar(len(items), "Evaluating") as step, closing(inspector.scan(by_source, look)) as found:
        for item, (prediction, seen) in zip(items, found, strict=True):
            of_mask, kept = seen or (_Seen(), None)
            tally.add(item, prediction, of_mask)
            if observer is not None:
                observer.add(item.path, item.kind, prediction, kept)
            step("")
    if not tally.scores:
        raise DataError(
            f"None of the {len(items)} images could be inspected. The first: "
            f"{next(iter(tally.errors.values()))}"
        )
    evaluation = _figures(stored, labelled, tally, threshold, seed)
    known_ones = known_images(stored, evaluation.n_learnt, evaluation.n_calibrated)
    return replace(evaluation, warnings=(*known_ones, *_warnings(evaluation, labelled)))


def known_images(stored: StoredModel, n_learnt: int, n_calibrated: int) -> Iterator[str]:
    """What makes the counts of images that a model knows better than those of others."""
    if n_learnt:
        yield (
            f"{n_learnt} of these images were in the training. Their scores are lower than "
            "those of other images and say nothing of the model."
        )
    if n_calibrated:
        yield (
            f"{n_calibrated} of these images have set the limit "
            f"({stored.manifest.calibration.record.get('by')}). The counts at it are better than "
            "they will be on other images."
        )


@dataclass(frozen=True)
class _Seen:
    """Of an image: its pixels, and how much of its mask is outside what is inspected."""

    pixels: Pixels | None = None
    share_outside: float = 0.0
    digest: str = ""


@dataclass
class _Tally:
    """What was said of the images so far."""

    curves: PixelCurves | None
    omitted: dict[str, str]
    has_region: bool = False
    learnt: Collection[str] = ()  # digests of images that training has seen
    calibrated: Collection[str] = ()  # and of those that have set the limit
    n_learnt: int = 0
    n_calibrated: int = 0
    scores: dict[str, list[float]] = field(default_factory=dict)  # raw, by kind
    flagged: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)
    unmarked: int = 0  # masks of defective images without a defective pixel
    outside: list[float] = field(default_factory=list)  # of masks, where not all is inspected

    def add(self, item: LabelledImage, prediction: Prediction, seen: _Seen) -> None:
        if prediction.error is not None or prediction.raw_score is None:
            self.errors[str(item.path)] = prediction.error or "not inspected"
            return
        self.scores.setdefault(item.kind, []).append(prediction.raw_score)
        self.flagged[item.kind] += bool(prediction.is_anomalous)
        self.n_learnt += seen.digest in self.learnt
        self.n_calibrated += seen.digest in self.calibrated
        if seen.share_outside > 0:
            self.outside.append(seen.share_outside)
        if self.curves is not None and seen.pixels is not None:
            self.curves.add(item.kind, seen.pixels)
            is_unmarked = item.mask is not None and not seen.pixels.regions
            self.unmarked += is_unmarked and seen.share_outside < 1


def _pixel_curves(
    stored: StoredModel, labelled: LabelledImages
) -> tuple[PixelCurves | None, dict[str, str]]:
    """Where pixels are counted, or why they are not."""
    maxima = stored.manifest.calibration.map
    defective = [item for item in labelled.items if item.is_defective]
    without = sum(item.mask is None for item in defective)
    if maxima is None:
        why = f"{stored.manifest.plan.method} has no maps"
    elif not defective:
        why = "there are no defective images"
    elif without == len(defective):
        why = "there are no masks"
    else:
        # Steps of the maps' values are finest below the usual height of a good map. The limit does
        # not matter: a user may have moved it far away.
        height = abs(maxima.median) or maxima.limit
        return PixelCurves(maxima.median - height / 2, maxima.median + height / 2), {}
    return None, dict.fromkeys(_OF_PIXELS, why)


def _figures(
    stored: StoredModel, labelled: LabelledImages, tally: _Tally, threshold: float, seed: int
) -> Evaluation:
    limit = stored.manifest.calibration.image
    by_kind = {kind: np.array(some) for kind, some in tally.scores.items() if kind != GOOD}
    good = np.array(tally.scores.get(GOOD, []))
    defective = np.concatenate([*by_kind.values(), np.empty(0)])
    found = sum(tally.flagged[kind] for kind in by_kind)
    omitted = dict(tally.omitted)
    given: dict[str, Any] = dict.fromkeys(_BOTH_KINDS)
    if len(good) and len(defective):
        ranking = Ranking(good, defective)
        given["auroc"] = auroc(good, defective)
        given["f1"], given["best_f1"], given["average_precision"] = ranking.estimates(
            limit.raw(threshold), seed
        )
        best = ranking.limit_of_best_f1()
        if best > limit.median:
            given["best_f1_threshold"] = float(limit.score(best))
        else:
            omitted["best_f1_threshold"] = "the best limit lies below typical good images"
    else:
        missing = "defective" if len(good) else "good"
        omitted |= dict.fromkeys(_BOTH_KINDS, f"there are no {missing} images")
    curves = tally.curves if tally.curves is not None and tally.curves.is_complete else None
    given |= dict.fromkeys(_OF_PIXELS)
    if curves is not None:
        given["pixel_auroc"], given["aupro"] = curves.estimates(seed)
    elif tally.curves is not None:
        omitted |= dict.fromkeys(_OF_PIXELS, "no pixel is marked in the masks, or every one is")
    if not len(good):
        omitted["rejection_rate"] = "there are no good images"
    if not len(defective):
        omitted["detection_rate"] = "there are no defective images"
    kinds = [
        KindOfDefect(
            kind,
            len(some),
            tally.flagged[kind],
            wilson(tally.flagged[kind] / len(some), len(some)),
            auroc(good, some) if len(good) else None,
            curves.auroc(kind) if curves is not None and kind in curves.kinds else None,
        )
        for kind, some in sorted(by_kind.items())
    ]
    rejected = tally.flagged[GOOD]
    rates = at_rates(stored, good, defective)
    return Evaluation(
        source=labelled.source,
        layout=labelled.layout,
        model=stored.digest,
        threshold=threshold,
        stated_rate=limit.stated_rate,
        has_rate=stored.manifest.calibration.has_rate,
        n_good=len(good),
        n_defective=len(defective),
        n_learnt=tally.n_learnt,
        n_calibrated=tally.n_calibrated,
        n_unmarked=tally.unmarked,
        n_outside=sum(share == 1 for share in tally.outside),
        n_partly_outside=sum(share < 1 for share in tally.outside),
        rejected=rejected,
        found=found,
        rejection_rate=wilson(rejected / len(good), len(good)) if len(good) else None,
        detection_rate=wilson(found / len(defective), len(defective)) if len(defective) else None,
        **given,
        kinds=tuple(kinds),
        omitted=omitted,
        warnings=(),
        errors=tally.errors,
        rates=rates,
        next_step=next_step(rates, rejected, found),
    )


def _warnings(evaluation: Evaluation, labelled: LabelledImages) -> Iterator[str]:
    rejection, detection = evaluation.rejection_rate, evaluation.detection_rate
    if labelled.doubt:
        yield labelled.doubt
    if labelled.presumed:
        names = ", ".join(repr(name) for name in labelled.presumed)
        yield f"{names} counts as good; if that is a kind of defect, rename it."
    if labelled.passed_over:
        yield f"skipped: {printable(labelled.passed_over)}."
    stated, n_good = evaluation.stated_rate, evaluation.n_good
    # The rate is stated for the decision limit, not for a threshold of the user's.
    is_stated = evaluation.has_rate and evaluation.threshold == LIMIT_SCORE
    needed = cases_needed(stated) if is_stated else 0
    if rejection is not None and is_stated and rejection.low > stated:
        yield (
            f"more good parts are rejected than the stated {stated:.1%}: these images differ from "
            "those used for calibration (`calibrate` accepts others)."
        )
    elif rejection is not None and n_good < needed:
        yield (
            f"{_images(n_good, 'good')} {'is' if n_good == 1 else 'are'} too few to confirm the "
            f"stated false alarm rate of {stated:.1%}: the true one may be up to "
            f"{rejection.high:.1%}. Take {needed} or more."
        )
    if detection is not None and detection.high - detection.low > 0.2:
        yield (
            f"{_images(evaluation.n_defective, 'defective')} "
            f"{'is' if evaluation.n_defective == 1 else 'are'} too few to tell: the share that is "
            f"found may lie anywhere from {detection.low:.0%} to {detection.high:.0%}."
        )
    without = sum(item.is_defective and item.mask is None for item in labelled.items)
    if without and any(item.mask is not None for item in labelled.items):
        yield f"{without} defective images have no mask; the figures of pixels leave them out."
    if evaluation.n_unmarked:
        yield f"{evaluation.n_unmarked} masks of defective images mark no pixel."
    if evaluation.n_outside or evaluation.n_partly_outside:
        yield (
            f"the masks of {_images(evaluation.n_outside)} lie wholly outside the region that is "
            f"inspected, and of {evaluation.n_partly_outside} in part. Pixels count inside alone; "
            "what lies outside cannot be found."
        )
    if evaluation.errors:
        first = printable(next(iter(evaluation.errors.values())))
        yield f"{_images(len(evaluation.errors))} could not be inspected. The first: {first}"


def _images(count: int, kind: str = "") -> str:
    return f"{count} {kind + ' ' if kind else ''}{'image' if count == 1 else 'images'}"

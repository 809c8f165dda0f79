"""How large a defect must be to be found: rendered ones of graded sizes, inspected at the limit.

On good images that the model has not learnt from, defects of each kind are rendered and inspected;
`hitmiss` fits the probability of detection over their size. docs/detection.md says what that
promises, and what it does not.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.rendered import KINDS, LEAST_SIZE, check_contrast, defect_size
from ..errors import DataError, OptionError
from ..images import PathLike, find_training_images
from ..images.labelled import LabelledImage, find_labelled, read_fitting_mask
from ..images.sources import Sources, file_sources
from ..inspection import Inspected, Inspector, Output
from ..inspection.output import write_picture
from ..model import StoredModel
from ..support import bar, printable
from .hitmiss import HitMissFit, fit_hit_miss, load_scipy
from .intervals import Estimate, wilson
from .rates import A_LIST
from .rendered import RenderedSource

CONTRAST = 60.0  # gray levels
_SHARES = (0.01, 0.25)  # of the shorter side: smallest and largest size
_PER_ROUND = 40  # defects of a kind
_RENDERS = (160, 800)  # of a kind: at least, at most
_NARROW = 1.4  # high / low of the interval of a90 at which a series ends
# From the second round on: the share of defects whose sizes have a POD between. The variance of a90
# is least with 85 % at 0.82 and 15 % at 0.18; ranges are safer where the curve is not known yet.
_ABOUT = ((0.75, 0.7, 0.95), (0.25, 0.1, 0.4))
_LEAST_LABELLED = 20  # real defects; a curve of fewer tells nothing
_SHOWN = 6  # pictures of a kind


@dataclass(frozen=True)
class DetectionCurve:
    """Which defects of a kind were found, and the probability of detection over their size.

    Lengths are in pixels of the photograph, see `data.rendered.defect_size`.

    Parameters
    ----------
    kind : str
        A kind of `data.rendered.KINDS`, or "labelled" for the real defects of labelled images.
    sizes : tuple of float
        Length of each defect.
    found : tuple of bool
        Whether its image was called anomalous.
    n_images : int
        Images that they are on.
    intercept, slope : float or None
        Of the fit logit POD(a) = intercept + slope log a.
    a90 : float or None
        The size that is found nine times out of ten.
    a90_low, a90_high : float or None
        Its two-sided 95 % interval.
    a90_95 : float or None
        What a90 does not exceed with a confidence of 95 %.
    design_effect : float
        By how much the variance of log a90 is larger since defects share images; 1 at least.
    notes : tuple of str
        Why a figure is None, or what it cannot tell.
    """

    kind: str
    sizes: tuple[float, ...]
    found: tuple[bool, ...]
    n_images: int
    intercept: float | None = None
    slope: float | None = None
    a90: float | None = None
    a90_low: float | None = None
    a90_high: float | None = None
    a90_95: float | None = None
    design_effect: float = 1.0
    notes: tuple[str, ...] = ()

    def probability(self, sizes: ArrayLike) -> NDArray[np.float64] | None:
        """The fitted probability of detection of sizes in pixels; None where there is no fit."""
        if self.intercept is None or self.slope is None:
            return None
        logit = self.intercept + self.slope * np.log(np.asarray(sizes, float))
        return 1 / (1 + np.exp(-np.clip(logit, -700, 700)))

    def row(self, mm_per_pixel: float | None) -> tuple[str, ...]:
        """Its line of a table: kind, found, a90, interval, a90/95."""
        scale, digits = (1.0, 1) if mm_per_pixel is None else (mm_per_pixel, 3)

        def text(size: float | None) -> str:
            return "-" if size is None else f"{scale * size:.{digits}f}"

        interval = f"{text(self.a90_low)} to {text(self.a90_high)}" if self.a90 else "-"
        counts = f"{sum(self.found)} of {len(self.found)}"
        span = f"{text(min(self.sizes))} to {text(max(self.sizes))}"
        return printable(self.kind), counts, span, text(self.a90), interval, text(self.a90_95)


@dataclass(frozen=True)
class ProbabilityOfDetection:
    """Probability of detection over size, of rendered defects and, where there are any, real ones.

    Parameters
    ----------
    source : str
        Where the good images are from.
    model : str
        The model's digest.
    threshold : float
        Score above which an image is anomalous.
    contrast : float
        Of the rendered defects, in gray levels.
    mm_per_pixel : float or None
        Of the photographs.
    n_images : int
        Good images that defects were rendered on.
    n_learnt : int
        Images left out: the model has learnt from them, or they are copies.
    n_rejected : int
        Images left out since they are called anomalous as they are.
    rejection_rate : Estimate
        Share of these among the good images; Wilson's interval.
    curves : tuple of DetectionCurve
        Of rendered defects, kind by kind.
    labelled : DetectionCurve or None
        Of real defects of labelled images, where there are at least 20 with masks.
    errors : dict of str to str
        Images that could not be inspected, and why.
    """

    source: str
    model: str
    threshold: float
    contrast: float
    mm_per_pixel: float | None
    n_images: int
    n_learnt: int
    n_rejected: int
    rejection_rate: Estimate
    curves: tuple[DetectionCurve, ...]
    labelled: DetectionCurve | None
    errors: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold; with mm_per_pixel a90 in millimetres, too."""
        plain = asdict(self)
        if self.mm_per_pixel is not None:
            for curve in filter(None, [*plain["curves"], plain["labelled"]]):
                for name in ("a90", "a90_low", "a90_high", "a90_95"):
                    size = curve[name]
                    curve[f"{name}_mm"] = None if size is None else size * self.mm_per_pixel
        return plain

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @property
    def all_curves(self) -> tuple[DetectionCurve, ...]:
        """Those of rendered defects and, where there is one, that of real ones."""
        return self.curves if self.labelled is None else (*self.curves, self.labelled)

    @property
    def statement(self) -> str:
        """What the curves are of, as a sentence for people."""
        images = "1 good image" if self.n_images == 1 else f"{self.n_images} good images"
        return (
            f"RENDERED defects of {self.contrast:g} gray levels on {images} of "
            f"{printable(self.source)}, inspected at thresh {self.threshold:g}. Real ones may be "
            "easier or harder to find."
        )

    @property
    def remarks(self) -> list[str]:
        """What the figures leave open, what was left out, and what the words mean."""
        lines = [
            f"{printable(curve.kind)}: {note}." for curve in self.all_curves for note in curve.notes
        ]
        if self.labelled is not None:
            lines.append("labelled: the real defects of the images with masks, all kinds together.")
        lines.append(
            f"As they are, {self.n_rejected} of {self.n_images + self.n_rejected} good images are "
            f"rejected: {self.rejection_rate.text(100, 1)} %"
            + ("; these were left out." if self.n_rejected else ".")
        )
        if self.n_learnt:
            lines.append(f"{self.n_learnt} images were left out: seen in training, or copies.")
        if self.errors:
            first = printable(next(iter(self.errors.values())))
            lines.append(f"{len(self.errors)} images could not be inspected. The first: {first}")
        lines.append(
            "a90: the size that is found nine times out of ten; a90/95: with 95 % confidence a90 "
            "is not larger. Size: the length of the defect."
        )
        return lines

    def __str__(self) -> str:
        unit = "px" if self.mm_per_pixel is None else "mm"
        head = ("kind", "found", f"sizes {unit}", f"a90 {unit}", "95 % interval", f"a90/95 {unit}")
        rows = [head, *(curve.row(self.mm_per_pixel) for curve in self.all_curves)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
        table = [
            "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([self.statement, *table, *self.remarks])


def detection_curve(
    stored: StoredModel,
    path: PathLike | Iterable[PathLike],
    *,
    kinds: Sequence[str] | None = None,
    sizes: tuple[float, float] | None = None,
    contrast: float = CONTRAST,
    threshold: float = 0.8,
    mm_per_pixel: float | None = None,
    seed: int = 0,
    save_path: PathLike | None = None,
    renders: tuple[int, int] = _RENDERS,
) -> ProbabilityOfDetection:
    """Render defects on good images, inspect them, and fit the probability of detection.

    Of each kind 160 to 800 are rendered, in rounds of 40. The sizes of the first are evenly spaced
    on a logarithmic scale; of the others three quarters lie where the curve of those before has a
    POD of 0.7 to 0.95, and one quarter where it has 0.1 to 0.4, which a90 hangs on most. A series
    ends early when its interval is narrow enough (high / low at most 1.4) or when there would be
    none. What is rendered next depends on earlier results only, so the likelihood is that of a
    fixed series; what ending early does to the coverage was measured (docs/detection.md). All
    images are used equally often.

    Parameters
    ----------
    stored : StoredModel
        The model.
    path, kinds, sizes, contrast, mm_per_pixel, seed, save_path
        See `AD.detection_curve`.
    threshold : float
        Score in [0, 1] above which an image is anomalous.
    renders : (int, int)
        Defects of a kind, at least and at most; multiples of 40 are rendered.

    Raises
    ------
    DataError, PathError
        There is no good image that the model has not learnt from.
    OptionError
        An argument cannot be used, or pictures would be written into the input.
    MissingExtraError
        SciPy is not installed.
    """
    load_scipy()  # missing or not is said before the work
    chosen = _checked_kinds(kinds)
    check_contrast(contrast)
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise OptionError(f"seed is a whole number from 0. Received: {seed!r}.")
    if mm_per_pixel is not None and not _is_positive(mm_per_pixel):
        raise OptionError(
            f"mm_per_pixel is a number above 0, such as 0.05. Received: {mm_per_pixel!r}."
        )
    if sizes is not None:
        sizes = _checked_sizes(sizes)
    inspector = Inspector(stored, threshold=threshold, keep_maps=False)
    good, defective, source = _find(path)
    output = None
    if save_path is not None:
        root = Path(path) if isinstance(path, (str, os.PathLike)) else None
        named = file_sources([*good, *(item.path for item in defective)])
        output = Output(save_path, Sources(named, len(named), root=root), inspector.about).folder
    usable, counts, errors = _usable(stored, inspector, good, source)
    span = sizes or _span(usable)
    series = [
        _Series(
            kind, usable, span, float(contrast), np.random.default_rng([seed, KINDS.index(kind)])
        )
        for kind in chosen
    ]
    _inspect_all(inspector, series, renders)
    if output is not None:
        drawn = Inspector(stored, threshold=threshold, side_by_side=True, draw=True)
        _write_pictures(drawn, series, output)
    return ProbabilityOfDetection(
        source=source,
        model=stored.digest,
        threshold=inspector.threshold,
        contrast=float(contrast),
        mm_per_pixel=None if mm_per_pixel is None else float(mm_per_pixel),
        n_images=len(usable),
        n_learnt=counts["learnt"],
        n_rejected=counts["rejected"],
        rejection_rate=wilson(counts["rejected"] / (n := len(usable) + counts["rejected"]), n),
        curves=tuple(one.curve() for one in series),
        labelled=_labelled_curve(stored, inspector, defective),
        errors=errors,
    )


# ------------------------------------------------------------------------------- arguments


def _is_positive(value: object) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 < float(value) < math.inf  # type: ignore[arg-type]


def _checked_kinds(kinds: Sequence[str] | None) -> tuple[str, ...]:
    if kinds is None:
        return KINDS
    named = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not named or any(kind not in KINDS for kind in named):
        raise OptionError(f"kinds are some of {', '.join(KINDS)}. Received: {kinds!r}.")
    return tuple(dict.fromkeys(named))


def _checked_sizes(sizes: object) -> tuple[float, float]:
    pair = tuple(sizes) if isinstance(sizes, Iterable) else ()
    if len(pair) != 2 or not all(map(_is_positive, pair)) or not LEAST_SIZE <= pair[0] < pair[1]:
        raise OptionError(
            f"sizes are the smallest and the largest length in pixels, from {LEAST_SIZE:g} on: "
            f"(4, 100). Received: {sizes!r}."
        )
    return float(pair[0]), float(pair[1])


# ---------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class _Good:
    """A good image that defects may be rendered on."""

    path: Path
    shorter: int  # side in pixels


def _find(
    path: PathLike | Iterable[PathLike],
) -> tuple[list[Path], list[LabelledImage], str]:
    """Good images, real defects with masks, and where they are from.

    The good ones among labelled images; or else a folder or a list of good images, as for training.
    """
    if isinstance(path, (str, os.PathLike)):
        try:
            items = find_labelled(path).items
        except DataError:
            items = ()  # a folder for training, which says itself what is wrong with it
        if good := [item.path for item in items if not item.is_defective]:
            return good, [item for item in items if item.mask is not None], str(path)
        return list(find_training_images(path).paths), [], str(path)
    return list(find_training_images(path).paths), [], A_LIST


def _usable(
    stored: StoredModel, inspector: Inspector, paths: Sequence[Path], source: str
) -> tuple[list[_Good], dict[str, int], dict[str, str]]:
    """Good images that are new to the model and pass as they are; what was left out."""
    known = set(stored.manifest.learnt)
    usable: list[_Good] = []
    counts, errors = {"learnt": 0, "rejected": 0}, {}

    def look(one: Inspected) -> tuple[str, int]:
        return one.digest, min(one.photo.size)

    with (
        bar(len(paths), "Inspecting good images") as step,
        closing(inspector.scan(file_sources(paths), look)) as found,
    ):
        for path, (prediction, seen) in zip(paths, found, strict=True):
            step("")
            if prediction.error is not None or seen is None:
                errors[str(path)] = prediction.error or "not inspected"
            elif seen[0] in known:
                counts["learnt"] += 1
            else:
                known.add(seen[0])  # a copy tells nothing new
                if prediction.is_anomalous:
                    counts["rejected"] += 1
                else:
                    usable.append(_Good(path, seen[1]))
    if usable:
        return usable, counts, errors
    if errors and not counts["learnt"] and not counts["rejected"]:
        raise DataError(
            f"None of the {len(paths)} images could be inspected. The first: "
            f"{next(iter(errors.values()))}"
        )
    if counts["rejected"]:
        raise DataError(
            f"All {counts['rejected']} good images of {printable(source)} that the model has not "
            "learnt from are rejected as they are, so nothing can be said of defects. Raise "
            "thresh, or move the limit with `calibrate`."
        )
    raise DataError(
        f"The model has learnt from all {counts['learnt']} good images of {printable(source)}, and "
        "on these defects are found more easily than on others. Give good images that it has not "
        "seen: take new photographs, or keep some out of the training."
    )


def _span(usable: Sequence[_Good]) -> tuple[float, float]:
    side = float(np.median([good.shorter for good in usable]))
    low = max(LEAST_SIZE, _SHARES[0] * side)
    return low, max(_SHARES[1] * side, 2 * low)


# ---------------------------------------------------------------------------------- series


class _Series:
    """Defects of one kind: what was rendered, and what was found."""

    def __init__(
        self,
        kind: str,
        usable: Sequence[_Good],
        span: tuple[float, float],
        contrast: float,
        rng: np.random.Generator,
    ) -> None:
        self.kind = kind
        self.first: list[RenderedSource] = []  # those of the first round, over all sizes
        self._usable, self._contrast, self._rng = usable, contrast, rng
        self._low, self._high = map(math.log, span)
        self._order: list[int] = []
        self._sizes: list[float] = []
        self._found: list[bool] = []
        self._images: list[int] = []
        self._rounds = 0

    def is_done(self, least: int, most: int) -> bool:
        """Whether there are enough defects, or further ones would tell little."""
        count = self._rounds * _PER_ROUND
        if count and not self._sizes:
            return True  # none fits
        if count < least or count >= most:
            return count >= most
        fit = fit_hit_miss(self._sizes, self._found, self._images)
        if isinstance(fit, str) or fit.low is None:
            return isinstance(fit, str)
        if fit.high is not None and fit.high <= _NARROW * fit.low:
            return True
        return fit.low > math.exp(self._high)

    def round(self) -> Iterator[tuple[int, RenderedSource]]:
        """The next defects, each with the number of its image."""
        self._rounds += 1
        sizes = self._rng.permutation(np.exp(self._next_sizes()))
        for size in sizes.tolist():
            if not self._order:
                self._order = self._rng.permutation(len(self._usable)).tolist()
            number = self._order.pop()
            path = self._usable[number].path
            seed = tuple(self._rng.integers(2**32, size=4).tolist())
            name = Path(path.name)
            yield (
                number,
                RenderedSource(str(path), path, None, name, self.kind, size, self._contrast, seed),
            )

    def add(self, number: int, rendered: RenderedSource, is_found: bool) -> None:
        """Take the verdict on a defect."""
        self._sizes += rendered.measured
        self._found.append(is_found)
        self._images.append(number)

    def _next_sizes(self) -> NDArray[np.float64]:
        """Sizes, in log, that tell most of a90 by what is known."""
        fit = fit_hit_miss(self._sizes, self._found) if self._sizes else "nothing is known"
        if isinstance(fit, str):
            return np.linspace(self._low, self._high, _PER_ROUND)
        slope = max(fit.slope, 1.0)  # a flat curve is looked at as a whole
        middle = math.log(fit.a90) - math.log(9) / fit.slope
        sizes = []
        for share, *ends in _ABOUT:
            low, high = (middle + math.log(p / (1 - p)) / slope for p in ends)
            # What is told apart by a hair is looked at from a little farther off.
            low, high = np.clip((low - 0.02, high + 0.02), self._low, self._high)
            sizes.append(np.linspace(low, high, round(share * _PER_ROUND)))
        return np.concatenate(sizes)

    def curve(self) -> DetectionCurve:
        """What came of it."""
        return _curve(self.kind, self._sizes, self._found, self._images)


def _inspect_all(inspector: Inspector, series: Sequence[_Series], renders: tuple[int, int]) -> None:
    """Render and inspect, round by round."""
    number = 0
    while going := [one for one in series if not one.is_done(*renders)]:
        number += 1
        due = [(one, *trial) for one in going for trial in one.round()]
        for one, _, rendered in due if number == 1 else ():
            one.first.append(rendered)
        with (
            bar(len(due), f"Rendering and inspecting, round {number}") as step,
            closing(inspector.scan((made for *_, made in due), lambda one: None)) as found,
        ):
            for (one, image, rendered), (prediction, _) in zip(due, found, strict=True):
                if prediction.error is None:
                    one.add(image, rendered, bool(prediction.is_anomalous))
                step("")


def _write_pictures(inspector: Inspector, series: Sequence[_Series], folder: Path) -> None:
    """A few renders of each kind, small to large, next to what the model marks."""
    chosen = []
    for one in series:
        ordered = sorted(one.first, key=lambda rendered: rendered.size)
        places = np.linspace(0, len(ordered) - 1, _SHOWN).round().astype(int)
        chosen += [ordered[place] for place in places]

    def write(one: Inspected) -> None:
        rendered = one.source
        assert isinstance(rendered, RenderedSource) and one.picture is not None
        verdict = "found" if one.prediction.is_anomalous else "missed"
        name = f"{rendered.measured[0]:05.1f}px_{verdict}.png"
        write_picture(one.picture, folder / rendered.kind / name)

    with (
        bar(len(chosen), "Writing pictures") as step,
        closing(inspector.scan(chosen, write)) as found,
    ):
        for _ in found:
            step("")


def _labelled_curve(
    stored: StoredModel, inspector: Inspector, defective: Sequence[LabelledImage]
) -> DetectionCurve | None:
    """The same of real defects, sized by their masks; None of fewer than 20."""
    if len(defective) < _LEAST_LABELLED:
        return None
    sources = file_sources([item.path for item in defective])
    masks = {source: item.mask for source, item in zip(sources, defective, strict=True)}

    def measure(one: Inspected) -> tuple[str, float]:
        mask = masks[one.source]
        assert mask is not None
        return one.digest, defect_size(read_fitting_mask(mask, one.photo.size))

    known = set(stored.manifest.learnt)
    sizes, hits = [], []
    with (
        bar(len(sources), "Inspecting labelled images") as step,
        closing(inspector.scan(sources, measure)) as found,
    ):
        for prediction, seen in found:
            step("")
            if seen is not None and prediction.error is None and seen[0] not in known and seen[1]:
                sizes.append(seen[1])
                hits.append(bool(prediction.is_anomalous))
    if len(sizes) < _LEAST_LABELLED:
        return None
    return _curve("labelled", sizes, hits, range(len(sizes)))


# ------------------------------------------------------------------------------ conclusions


def _curve(
    kind: str, sizes: Sequence[float], found: Sequence[bool], images: Sequence[int]
) -> DetectionCurve:
    """The fit, and in words what it does not give."""
    if not len(sizes):
        raise DataError(
            f"No {kind} fits on the part in any of the images. Ask for smaller sizes, or leave "
            "this kind out."
        )
    smallest, largest = min(sizes), max(sizes)
    given: dict[str, Any] = {
        "kind": kind,
        "sizes": tuple(map(float, sizes)),
        "found": tuple(map(bool, found)),
        "n_images": len(set(images)),
    }
    fit = fit_hit_miss(sizes, found, images)
    if isinstance(fit, str):
        return DetectionCurve(**given, notes=(_why_no_fit(fit, smallest, largest),))
    given |= {
        "intercept": fit.intercept,
        "slope": fit.slope,
        "design_effect": fit.design_effect,
    }
    share = 100 * float(fit.probability(largest))
    if fit.a90 > largest:
        note = f"by the fit {share:.0f} % of {largest:.0f} px are found, the largest: a90 is larger"
        return DetectionCurve(**given, notes=(note,))
    if fit.a90 < smallest:
        note = f"by the fit over 90 % of {smallest:.1f} px are found, the smallest: a90 is smaller"
        return DetectionCurve(**given, notes=(note,))
    return DetectionCurve(**given, a90=fit.a90, **_ends(fit, smallest, largest))


def _why_no_fit(reason: str, smallest: float, largest: float) -> str:
    if reason == "all were found":
        return f"all were found, from {smallest:.1f} px on: a90 is smaller"
    if reason == "none was found":
        return f"none was found, up to {largest:.0f} px: a90 is larger"
    return f"{reason} from {smallest:.1f} to {largest:.0f} px, so there is no a90"


def _ends(fit: HitMissFit, smallest: float, largest: float) -> dict[str, Any]:
    """The interval, without what lies beyond the sizes at hand, and notes on it."""
    notes = []
    if fit.is_separated:
        notes.append("all found are larger than all missed; a90 is the smallest that was found")
    low = None if fit.low is None or fit.low < smallest else fit.low
    if low is None:
        notes.append(f"the interval goes on below the smallest, {smallest:.1f} px")
    high, upper = (None if x is None or x > largest else x for x in (fit.high, fit.a90_95))
    if high is None:
        notes.append(f"the interval goes on beyond the largest, {largest:.0f} px")
    return {
        "a90_low": low,
        "a90_high": high,
        "a90_95": upper,
        "notes": tuple(notes),
    }

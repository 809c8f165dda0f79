"""Whether what the model sees today is still what it was calibrated with."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError, PathError, missing_extra
from ..images import PathLike, check_path
from ..inspection.records import read_records
from ..model import StoredModel
from ..support import printable
from .intervals import Estimate, wilson

_LEAST = 10  # images of a window; fewer tell nothing
_WINDOWS = 10  # if the user names no size
SIGNIFICANCE = 0.05  # of all windows together
# How far new good parts may lie below a cross-fitted reference, as a distance of distributions:
# 0.06 to 0.08 was measured (docs/limits.md).
CROSS_FITTED = 0.1


@dataclass(frozen=True)
class Distance:
    """Kolmogorov-Smirnov: how far the distributions of two sets of scores lie apart.

    Parameters
    ----------
    statistic, p_value : float
        The largest distance, and how probable one so large is if both are of one distribution.
    p_change : float
        The same for the distance by which the scores are higher than the reference, or lower by
        more than the reference may be wrong. By the triangle inequality it is too large rather than
        too small.
    direction : str
        "higher" or "lower": where the scores lie at the place of the largest distance.
    """

    statistic: float
    p_value: float
    p_change: float
    direction: str


@dataclass(frozen=True)
class Window:
    """Some predictions in a row, compared with the calibration.

    Parameters
    ----------
    first, last : int
        Places in the file, from 0, both inclusive.
    begins, ends : str or None
        Their times, where the file has them.
    n_images : int
        How many.
    statistic, p_value, p_change, direction
        As in `Distance`, compared with the scores of the calibration.
    above : int
        Images above the decision limit.
    above_rate : Estimate
        Their share; Wilson's interval.
    """

    first: int
    last: int
    begins: str | None
    ends: str | None
    n_images: int
    statistic: float
    p_value: float
    p_change: float
    direction: str
    above: int
    above_rate: Estimate


@dataclass(frozen=True)
class Drift:
    """Predictions compared with the calibration, all together and window by window.

    Parameters
    ----------
    source, model : str
        The file of predictions, the model's digest.
    n_calibration : int
        Good images behind the limit.
    stated_rate : float or None
        Share of good parts that may exceed the limit; None where no rate is promised.
    promise : str
        That in words.
    n_left_out : int
        Lines with an error, and of other models.
    cross_fitted : bool
        Whether the good images were scored by models fitted on a fifth fewer images than the
        final one: their scores are a little higher than those of new good parts.
    whole : Window
        All predictions.
    windows : tuple of Window
        In the order of the file.
    """

    source: str
    model: str
    n_calibration: int
    stated_rate: float | None
    promise: str
    n_left_out: int
    cross_fitted: bool
    whole: Window
    windows: tuple[Window, ...]

    @property
    def drifting(self) -> tuple[Window, ...]:
        """Windows whose `p_change` is below 0.05 over their number (Bonferroni)."""
        return tuple(w for w in self.windows if w.p_change < SIGNIFICANCE / len(self.windows))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return {**asdict(self), "drifting": [window.first for window in self.drifting]}

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        head = ("images", "above the limit", "95 % interval", "KS", "p", "")
        rows = [head, *(self._row(window) for window in (self.whole, *self.windows))]
        widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
        lines = [
            f"{printable(self.source)}, compared with {self.n_calibration} good images of the "
            f"calibration. The limit: {self.promise}"
        ]
        lines += [
            "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        if self.n_left_out:
            lines.append(f"{self.n_left_out} lines with errors or of other models were left out.")
        shown = (self.whole, *self.windows)
        if any(w.p_value < SIGNIFICANCE <= w.p_change for w in shown):
            lines.append(
                "Scores a little lower are not drift here: the good images of the training were "
                f"scored by models fitted on fewer, so up to {CROSS_FITTED:g} of KS in that "
                "direction is not marked. `calibrate` with new good images gives an exact "
                "comparison."
            )
        return "\n".join(lines)

    def _row(self, window: Window) -> tuple[str, ...]:
        rate = window.above_rate
        marks = [f"DRIFT, {window.direction}"] if window in self.drifting else []
        if self.stated_rate is not None and rate.low > self.stated_rate:
            marks.append("more than stated")
        name = "all" if window is self.whole else f"{window.first} to {window.last}"
        since = "" if window.begins is None else f", from {window.begins}"
        return (
            printable(f"{name}{since}"),
            f"{window.above} of {window.n_images}",
            f"{100 * rate.low:.1f} to {100 * rate.high:.1f} %",
            f"{window.statistic:.3f}",
            f"{window.p_value:.2g}",
            ", ".join(marks),
        )


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise missing_extra("Comparing distributions", "eval", "scipy") from error
    return stats


def compare(scores: NDArray, reference: NDArray, tolerance: float = 0) -> Distance:
    """Kolmogorov-Smirnov's test of scores against a reference.

    Parameters
    ----------
    scores, reference : ndarray of float, shape (N,), (M,)
        Raw scores.
    tolerance : float
        How far the reference may lie too high, as a distance of distributions in [0, 1].

    Raises
    ------
    MissingExtraError
        SciPy is not installed.
    """
    stats = _scipy_stats()
    both = stats.ks_2samp(scores, reference)
    p_change = both.pvalue
    if tolerance:
        higher = stats.ks_2samp(scores, reference, alternative="less").statistic
        lower = stats.ks_2samp(scores, reference, alternative="greater").statistic
        effective = len(scores) * len(reference) / (len(scores) + len(reference))
        p_change = stats.kstwo.sf(max(higher, lower - tolerance), max(round(effective), 1))
    direction = "lower" if both.statistic_sign > 0 else "higher"
    return Distance(float(both.statistic), float(both.pvalue), float(p_change), direction)


def drift(stored: StoredModel, path: PathLike, window: int | None = None) -> Drift:
    """Compare predictions with the calibration of the model.

    Parameters
    ----------
    stored : StoredModel
        The model that made them.
    path : path
        A predictions.csv, or a predictions.jsonl, which also has times and knows its model.
    window : int, optional
        Images of a window, 10 at least; None for a tenth of them all, but 30 at least.

    Raises
    ------
    PathError, DataError
        There is no such file, or it holds too few predictions of this model.
    OptionError
        The window is not such a number.
    MissingExtraError
        SciPy is not installed.
    """
    _scipy_stats()  # missing or not is said before the work
    if window is not None and (
        isinstance(window, bool) or not isinstance(window, Integral) or window < _LEAST
    ):
        raise OptionError(f"window is a number of images, {_LEAST} at least. Received: {window!r}.")
    good = stored.good_scores()
    reference = good.scores
    limit = stored.manifest.calibration.image
    scores, times, left_out = _read(check_path(path, "The file of predictions"), stored)
    count = len(scores)
    if count < _LEAST:
        raise DataError(
            f"{path} holds {count} predictions of this model with a score; at least {_LEAST} "
            "are needed. Is it the file of another model?"
        )

    def window_of(first: int, last: int) -> Window:
        some = scores[first : last + 1]
        above = int((some > limit.limit).sum())
        return Window(
            first,
            last,
            times[first],
            times[last],
            len(some),
            **asdict(compare(some, reference, CROSS_FITTED if good.cross_fitted else 0)),
            above=above,
            above_rate=wilson(above / len(some), len(some)),
        )

    size = int(window) if window is not None else max(math.ceil(count / _WINDOWS), 30)
    starts = [start for start in range(0, count, size) if start == 0 or count - start >= _LEAST]
    ends = [*(start - 1 for start in starts[1:]), count - 1]
    return Drift(
        source=str(path),
        model=stored.digest,
        n_calibration=len(reference),
        stated_rate=stored.manifest.calibration.stated_rate,
        promise=stored.manifest.calibration.promise,
        n_left_out=left_out,
        cross_fitted=good.cross_fitted,
        whole=window_of(0, count - 1),
        windows=tuple(window_of(a, b) for a, b in zip(starts, ends, strict=True)),
    )


def _read(path: Path, stored: StoredModel) -> tuple[NDArray[np.float64], list[str | None], int]:
    """Raw scores, their times, and how many lines were left out."""
    if not os.path.isfile(path):
        raise PathError(f"{path}: there is no such file. `predict` writes predictions.csv.")
    scores, times, left_out = [], [], 0
    for line in _lines(path):
        try:
            raw = float(line["raw_score"])
        except (KeyError, TypeError, ValueError):
            raw = math.nan
        # The graph's name stays when limits are moved; older lines know the whole model only.
        same = line.get("detector") == stored.detector or line.get("model") == stored.digest
        if math.isfinite(raw) and (same or "model" not in line):
            scores.append(raw)
            times.append(line.get("time"))
        else:
            left_out += 1
    return np.array(scores, np.float64), times, left_out


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() == ".jsonl":
        yield from read_records(path)
        return
    wanted = "Name the predictions.csv or predictions.jsonl that `predict` has written."
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            table = csv.DictReader(file)
            if "raw_score" not in (table.fieldnames or ()):
                raise DataError(
                    f"{path} is not a table of predictions: it has no column raw_score. {wanted}"
                )
            yield from table
    except csv.Error as error:
        raise DataError(f"{path} is not a table of predictions ({error}). {wanted}") from error

"""What limits for other false alarm rates would do: to choose one, next to what the model has."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..model import StoredModel, images_needed

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class AtRate:
    """What a limit for a false alarm rate would do with labelled images.

    Parameters
    ----------
    rate : float
        That is asked for, in (0, 1).
    limit : float
        Raw score, from the good images that the model was trained on.
    stated_rate : float
        What these support: greater than `rate` where they are fewer than `images_needed`.
    images_needed : int
        Good images that the rate takes, or groups of them.
    rejected, n_good : int
        Good images beyond the limit, and all of them.
    found, n_defective : int
        Defective images beyond the limit, and all of them.
    in_groups : bool
        Whether the good images behind the limit come in groups, which are counted then.
    """

    rate: float
    limit: float
    stated_rate: float
    images_needed: int
    rejected: int
    n_good: int
    found: int
    n_defective: int
    in_groups: bool = False

    @property
    def gain(self) -> float:
        """Share of defective images that are found, less that of good ones that are rejected."""
        return self.found / max(self.n_defective, 1) - self.rejected / max(self.n_good, 1)


def at_rates(
    stored: StoredModel, good: NDArray[np.float64], defective: NDArray[np.float64]
) -> tuple[AtRate, ...]:
    """A row for each of `RATES`; none where the model did not keep the scores of good images.

    Parameters
    ----------
    stored : StoredModel
        The model.
    good, defective : ndarray of float64, shape (n,)
        Raw scores of labelled images.
    """
    try:
        unseen = stored.good_scores(of_training=True)
    except ModelError:
        return ()
    rows = []
    for rate in RATES:
        image = unseen.calibration(rate).image
        rejected, found = (int((some > image.limit).sum()) for some in (good, defective))
        rows.append(
            AtRate(
                rate=rate,
                limit=image.limit,
                stated_rate=image.stated_rate,
                images_needed=images_needed(rate),
                rejected=rejected,
                n_good=len(good),
                found=found,
                n_defective=len(defective),
                in_groups=image.n_groups is not None,
            )
        )
    return tuple(rows)


def table(rows: Sequence[AtRate]) -> list[str]:
    """The rows as lines of text."""
    lines = ["Limits for other false alarm rates (calibrate --false-alarm-rate):"]
    for row in rows:
        words = [f"  {row.rate:6.1%}  limit {row.limit:.6g}"]
        if row.n_good:
            words.append(f"{row.rejected} of {row.n_good} rejected")
        if row.n_defective:
            words.append(f"{row.found} of {row.n_defective} found")
        if row.stated_rate > row.rate:
            groups = "groups of " if row.in_groups else ""
            words.append(f"needs {row.images_needed} {groups}good images")
        lines.append(", ".join(words))
    return lines


def next_step(rows: Sequence[AtRate], rejected: int, found: int, model: str) -> str | None:
    """The command that sets a better limit, where one of these is better on the images at hand.

    Better is a greater share found less the share rejected; of equal ones the smaller rate.

    Parameters
    ----------
    rejected, found : int
        Good and defective images beyond the present limit.
    model : str
        The model's directory.
    """
    if not rows or not rows[0].n_good or not rows[0].n_defective:
        return None
    best = max(rows, key=lambda row: (row.gain, -row.rate))
    now = found / best.n_defective - rejected / best.n_good
    if best.found <= found or best.gain <= now:
        return None
    return (
        f"A limit for {best.rate:.1%} would find {best.found} of {best.n_defective} and reject "
        f"{best.rejected} of {best.n_good}: anomaly-ad calibrate {shlex.quote(model)} "
        f"--false-alarm-rate {best.rate:g}. Up to {best.stated_rate:.1%} of good parts may then be "
        "rejected."
    )

"""Limits for some false alarm rates, and what they do with images at hand: to choose a rate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ModelError
from ..model import StoredModel, images_needed
from ..support import printable

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
A_LIST = "a list of paths"  # the source of images that were not given as one folder


@dataclass(frozen=True)
class AtRate:
    """The limit for a false alarm rate, and what it does with labelled images.

    Parameters
    ----------
    rate : float
        That is asked for, in (0, 1).
    limit : float
        Raw score, from the good images that limits for a rate are taken from.
    stated_rate : float
        What these support: greater than `rate` where they are fewer than `images_needed`.
    images_needed : int
        Good images that the rate takes, or groups of them.
    rejected, n_good : int
        Good images beyond the limit, and all of them.
    found, n_defective : int
        Defective images beyond the limit, and all of them.
    is_present : bool
        Whether the model has this limit.
    command : str
        Sets it.
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
    is_present: bool
    command: str
    in_groups: bool

    @property
    def gain(self) -> float:
        """Share of defective images that are found, less that of good ones that are rejected."""
        return self.found / max(self.n_defective, 1) - self.rejected / max(self.n_good, 1)


def at_rates(
    stored: StoredModel, good: ArrayLike = (), defective: ArrayLike = ()
) -> tuple[AtRate, ...]:
    """A row for each of `RATES` and for the model's own; none if it kept no scores of good images.

    Parameters
    ----------
    stored : StoredModel
        The model.
    good, defective : array_like of float, shape (n,)
        Raw scores of labelled images, where there are some.
    """
    present = stored.manifest.calibration
    source = present.good_source
    try:
        unseen = stored.good_scores(of_training=source is None)
    except ModelError:
        return ()
    own = {present.image.asked_rate} if present.has_rate else set()
    words = f"anomaly-ad calibrate {shlex.quote(str(stored.directory))} "
    if source is not None:
        words += f"--good {'DIR' if source == A_LIST else shlex.quote(source)} "
    rows = []
    for rate in sorted({*RATES, *own}):
        image = unseen.calibration(rate).image
        rejected, found = (int((np.asarray(x) > image.limit).sum()) for x in (good, defective))
        rows.append(
            AtRate(
                rate=rate,
                limit=image.limit,
                stated_rate=image.stated_rate,
                images_needed=images_needed(rate),
                rejected=rejected,
                n_good=np.size(good),
                found=found,
                n_defective=np.size(defective),
                is_present=rate in own and image.limit == present.image.limit,
                command=f"{words}--false-alarm-rate {rate:g}",
                in_groups=image.n_groups is not None,
            )
        )
    return tuple(rows)


def command(rows: Sequence[AtRate]) -> str:
    """What sets any of these limits, with RATE for the rate."""
    return printable(rows[0].command.removesuffix(f"{rows[0].rate:g}") + "RATE")


def table(rows: Sequence[AtRate]) -> list[str]:
    """The rows as lines of text; no lines without rows."""
    if not rows:
        return []
    lines = [f"Limits for other false alarm rates ({command(rows)}):"]
    limits = [f"{row.limit:.6g}" for row in rows]
    width = max(map(len, limits))
    for row, limit in zip(rows, limits, strict=True):
        notes = []
        if row.n_good:
            notes.append(f"{row.rejected} of {row.n_good} rejected")
        if row.n_defective:
            notes.append(f"{row.found} of {row.n_defective} found")
        if row.stated_rate > row.rate:
            groups = "groups of " if row.in_groups else ""
            notes.append(f"needs {row.images_needed} {groups}good images")
        words = [f"  {row.rate:6.1%}  limit {limit:{width}}", ", ".join(notes)]
        words += ["<- this model"] if row.is_present else []
        lines.append("  ".join(filter(None, words)).rstrip())
    return lines


def next_step(rows: Sequence[AtRate], rejected: int, found: int) -> str | None:
    """The command that sets a better limit, where one of these is better on the images at hand.

    Better is a greater share found less the share rejected; of equal ones the smallest rate that
    has enough good images.

    Parameters
    ----------
    rejected, found : int
        Good and defective images beyond the present limit.
    """
    if not rows or not rows[0].n_good or not rows[0].n_defective:
        return None
    best = max(rows, key=lambda row: (row.gain, row.stated_rate <= row.rate, -row.rate))
    now = found / best.n_defective - rejected / best.n_good
    if best.found <= found or best.gain <= now:
        return None
    return (
        f"A limit for {best.rate:.1%} would find {best.found} of {best.n_defective} and reject "
        f"{best.rejected} of {best.n_good}: {best.command}. Up to {best.stated_rate:.1%} of good "
        "parts may then be rejected."
    )

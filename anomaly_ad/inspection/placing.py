"""A model on another device than the one that its limits are from: checked there, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError, DeviceError, OptionError
from ..images import PathLike, find_training_images
from ..images.sources import file_sources
from ..model import StoredModel
from ..runtime import Device
from .inspector import Inspector

_IMAGES = 32
TOLERANCE = 0.02  # of the distance from the median of good images to their limit


def place(stored: StoredModel, device: Device, good: PathLike | None = None) -> StoredModel:
    """Bring a model to a device.

    Limits hold in the arithmetic that they were taken in, and another device may have another.
    There, scores of good images are compared with those of the device that the limits are from.

    Parameters
    ----------
    stored : StoredModel
        The model, on any device.
    device : Device
        Where it is to run.
    good : path, optional
        A folder of good images, of which up to 32 are inspected on both. None: not compared, and
        `check_place` refuses the model where that is needed.

    Raises
    ------
    OptionError
        There is no such device.
    DeviceError
        Scores deviate by more than 2 % of the distance from the median to the limit, or a verdict
        differs; or the device that the limits are from is not there.
    DataError
        None of these images can be inspected.
    """
    placed = stored.on(device)
    if placed.is_at_home or good is None:
        return placed
    home = Device(stored.manifest.calibration.device)
    limit = stored.manifest.calibration.image
    found = find_training_images(good)
    paths = found.paths[:: -(-len(found.paths) // _IMAGES)]
    here, there = (
        np.array([*_scores(model, paths)]) for model in (placed, stored.on(_known(home)))
    )
    both = np.isfinite(here) & np.isfinite(there)
    if not both.any():
        raise DataError(f"None of {len(paths)} images of {found} can be inspected: nothing shown.")
    deviation = float(np.abs(here - there)[both].max()) / (limit.limit - limit.median)
    differing = int(((here > limit.limit) != (there > limit.limit))[both].sum())
    words = (
        f"scores of {int(both.sum())} good images on {device.name} deviate from those on "
        f"{home.name} by up to {deviation:.2%} of the distance from their median to the limit"
    )
    if deviation > TOLERANCE or differing:
        raise DeviceError(
            f"The limits of {stored.directory} do not hold on {device.name}: {words} (at most "
            f"{TOLERANCE:.0%} is accepted), and {differing} verdicts differ. {_advice(device)}"
        )
    return replace(placed, shown=f"The limits hold: {words}.")


def check_place(stored: StoredModel) -> StoredModel:
    """The model, if its limits are known to hold where it runs; DeviceError otherwise."""
    if stored.is_at_home or stored.shown:
        return stored
    device, home = stored.engine.device, stored.manifest.calibration.device
    raise DeviceError(
        f"The limits of {stored.directory} were taken on {home}; on {device.name} its arithmetic "
        f"is {stored.engine.arithmetic}, and they may not hold. Name a folder of good images with "
        f"`check` (--check DIR) to have that shown. {_advice(device)}"
    )


def _known(home: Device) -> Device:
    try:
        home.check()
    except OptionError as error:
        raise DeviceError(
            f"The limits are from {home.name}, which this machine lacks, so that nothing can be "
            "compared. Calibrate the model on this device."
        ) from error
    return home


def _advice(device: Device) -> str:
    return (
        "Or take the limits there, from good images that it has not learnt: "
        f"AD(..., device={device.name!r}).calibrate(good=DIR), or `anomaly-ad calibrate MODEL "
        f"--good DIR --device {device.name}`."
    )


def _scores(model: StoredModel, paths: Sequence[Path]) -> Iterator[float]:
    for prediction, _ in Inspector(model, keep_maps=False).scan(file_sources(paths), lambda _: 0):
        score = prediction.raw_score
        yield float("nan") if score is None else score

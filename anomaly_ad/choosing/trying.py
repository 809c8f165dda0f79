"""Training a method to see what comes of it: what `compare` and `tune` have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError, OutputError
from ..images import PathLike
from ..images.labelled import GOOD
from ..images.sources import Source
from ..inspection import Inspector
from ..methods import registry
from ..model import Choice, StoredModel
from ..support import bar
from .merit import Scored


def choice_of(
    method: str, options: Mapping[str, Any], save_path: PathLike, name: str | None
) -> Choice:
    """A method with options of `AD`, to be saved there; OptionError if one cannot be used."""
    own = dict.fromkeys(registry.OPTIONS[3:]) | dict(options)
    return Choice.of(method, save_path, name, own)


def refuse_interrupted(stored: StoredModel) -> StoredModel:
    """The model; KeyboardInterrupt where Ctrl-C ended its training before its time."""
    if stored.manifest.training.get("is_interrupted"):
        raise KeyboardInterrupt
    return stored


def check_budget(budget: float | None) -> None:
    """Raise OptionError unless it is a time in seconds, or None."""
    is_number = isinstance(budget, Real) and not isinstance(budget, bool)
    if budget is not None and not (is_number and budget > 0):
        raise OptionError(f"budget is a time in seconds, above 0. Received: {budget!r}.")


def check_writable(directory: Path) -> None:
    """Raise OutputError where a model cannot be saved, before the work."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory.parent):
            pass
    except OSError as error:
        raise OutputError(f"{directory.parent} cannot be written ({error.strerror}).") from error


def tested(
    stored: StoredModel, tests: Sequence[tuple[Source, str]], what: str
) -> tuple[dict[int, float], dict[int, str]]:
    """Raw scores of images by their places; and why others have none.

    Parameters
    ----------
    stored : StoredModel
        The model.
    tests : sequence of (Source, str)
        Images and their kinds.
    what : str
        For the progress bar.
    """
    inspector = Inspector(stored, keep_maps=False)
    scores: dict[int, float] = {}
    errors: dict[int, str] = {}
    with (
        bar(len(tests), what) as step,
        closing(inspector.scan((source for source, _ in tests), lambda one: None)) as found,
    ):
        for place, (prediction, _) in enumerate(found):
            if prediction.raw_score is None:
                errors[place] = f"{prediction.path}: {prediction.error}"
            else:
                scores[place] = prediction.raw_score
            step("")
    return scores, errors


def scored(
    stored: StoredModel,
    scores: Mapping[int, float],
    tests: Sequence[tuple[Source, str]],
    places: Sequence[int],
) -> Scored:
    """Scores of good and of defective images at some places, with the limit of the model."""
    return Scored(
        np.array([scores[place] for place in places if tests[place][1] == GOOD]),
        np.array([scores[place] for place in places if tests[place][1] != GOOD]),
        stored.manifest.calibration.image.limit,
    )

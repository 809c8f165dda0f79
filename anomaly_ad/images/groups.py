"""Groups: which of the images of good parts show one part.

Several photographs of one part resemble each other more than those of two parts. Whatever is done
with images that a fit has not seen must leave out the whole group, and counts groups.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from . import PathLike
from .folders import TrainingImages
from .labelled import by_file
from .sources import relative_names

Groups = str | Sequence[object] | Mapping[PathLike, object]


def grouped(images: TrainingImages, groups: Groups) -> TrainingImages:
    """The same images, with the group of each.

    Parameters
    ----------
    images : TrainingImages
        Files of good parts.
    groups : str, sequence or mapping
        A regular expression that is searched in the path of each file, relative to their folder
        (of a list, to the folder that they share) and with ``/`` between folders: the group is what
        the first parentheses capture or, where there are none, what the expression matches. Or a
        label for each file: in the order of the files, or by path.

    Raises
    ------
    OptionError
        The expression is invalid or does not match some of the files; labels and files do not
        match; a label is missing.
    """
    if isinstance(groups, str):
        return replace(images, groups=_by_pattern(images, groups), grouped_by=groups)
    labels = tuple(_label(value) for value in by_file(images.paths, groups, "group"))
    return replace(images, groups=labels, grouped_by="labels")


def numbered(labels: Sequence[str]) -> NDArray[np.intp]:
    """Groups as numbers from 0, in the order in which they come; shape (N,)."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(label, len(first)) for label in labels], np.intp)


def _by_pattern(images: TrainingImages, pattern: str) -> tuple[str, ...]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise OptionError(
            f"groups is a regular expression or labels; {pattern!r} is not one: {error}."
        ) from error
    names = [name.as_posix() for name in _relative(images)]
    matches = [expression.search(name) for name in names]
    number = min(expression.groups, 1)
    labels = tuple(match.group(number) or "" if match else "" for match in matches)
    without = [name for name, label in zip(names, labels, strict=True) if not label]
    if without:
        raise OptionError(
            f"groups={pattern!r} gives no group for {len(without)} of {len(names)} files, such as "
            f"{without[0]}. Change the expression so that it matches every file, or pass labels."
        )
    return labels


def _relative(images: TrainingImages) -> Sequence[PurePath]:
    if images.folder is None:
        return relative_names([Path(os.path.abspath(path)) for path in images.paths])
    return [path.relative_to(images.folder) for path in images.paths]


def _label(value: object) -> str:
    """The label of a group as a word: 7, 7.0 and "7" are one."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        value = f"{value:.0f}" if value == round(value) else str(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise OptionError(
        "The label of a group is a word or a number, such as the number of the part. Received: "
        f"{value!r}. A photograph of a part that has no other gets a label of its own."
    )

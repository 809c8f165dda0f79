"""What can go wrong, as one family of exceptions.

Everything this package raises on purpose is an `AnomalyADError`, and also the builtin that a Python
programmer would expect in its place. Each message says what was expected, what was received and
what to do about it; a note after it names the section of the documentation that explains the kind.
"""

from __future__ import annotations

import functools
from pathlib import Path

_EXPLAINED = "faq.md"  # the page that has a section for each kind


@functools.cache
def documentation(page: str) -> Path | None:
    """A page of the documentation on this machine, as installed or in a source tree.

    Parameters
    ----------
    page : str
        Its file, such as "faq.md".

    Returns
    -------
    Path or None
        None where the pages are not installed.
    """
    source = Path(__file__).parents[1]
    if (source / "setup.cfg").is_file():
        found = source / "docs" / page
        return found if found.is_file() else None
    from importlib import metadata

    try:
        files = metadata.files("anomaly-ad") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.parts[-3:] == ("doc", "anomaly-ad", page):
            return Path(str(file.locate())).resolve()
    return None


class AnomalyADError(Exception):
    """Base class of every error that anomaly_ad raises on purpose."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        page = documentation(_EXPLAINED)
        if page is not None:
            self.add_note(f"More: {page}#{type(self).__name__.lower()}")


class OptionError(AnomalyADError, ValueError):
    """An argument has a value that cannot be used."""


class PathError(AnomalyADError, FileNotFoundError):
    """A file or a folder that was named does not exist or cannot be opened."""


class ImageError(AnomalyADError, ValueError):
    """A file or an array is not an image that can be inspected."""


class ImageTooLargeError(ImageError):
    """An image has more pixels than are decoded."""


class PoseError(ImageError):
    """A part is not where, or not as large as, good parts are: that makes the image anomalous."""


class DataError(AnomalyADError, ValueError):
    """A set of images cannot be learned from: too few, broken, or not clearly good parts only."""


class TrainingError(AnomalyADError, RuntimeError):
    """A training has come to nothing that could be used."""


class NotTrainedError(AnomalyADError, RuntimeError):
    """A model is needed, and there is none yet."""


class ModelError(AnomalyADError, ValueError):
    """A model directory is missing, damaged, or of a format that this version does not know."""


class BackboneError(AnomalyADError, ValueError):
    """A pretrained network cannot be had, or does not fit what is asked of it."""


class ParityError(AnomalyADError, RuntimeError):
    """The converted model does not give the results of the trained one."""


class DeviceError(AnomalyADError, RuntimeError):
    """The limits of a model are not known to hold on the device that it is to run on."""


class EngineError(AnomalyADError, RuntimeError):
    """The engine that work was to be spread by does not start, or gives no results."""


class OutputError(AnomalyADError, OSError):
    """Results cannot be written where they should go."""


class MissingExtraError(AnomalyADError, ImportError):
    """A part of the package is used whose optional dependencies are not installed."""


def missing_extra(what: str, extra: str, missing: str) -> MissingExtraError:
    """Build the error for a missing optional dependency, naming the command that installs it.

    Parameters
    ----------
    what : str
        What the user was trying to do, as the start of a sentence: "Training".
    extra : str
        The extra of this package that brings the dependency: "train".
    missing : str
        The module that could not be imported.
    """
    return MissingExtraError(
        f"{what} needs the package {missing!r}, which is not installed. "
        f'Install it with: python -m pip install "anomaly-ad[{extra}]"'
    )

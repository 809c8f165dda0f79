"""Whole runs over what a user names: predict, which keeps all, and stream, which keeps nothing."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ..drawing import screen
from ..errors import OptionError
from ..images import Image, PathLike, check_path
from ..images.sources import PredictInput, Sources, find_sources
from ..model import StoredModel
from ..support import say
from .inspector import Inspected, Inspector, count_verdicts, summary
from .output import Output
from .prediction import Prediction

_SHOWN = 20  # pictures of one run


@dataclass(frozen=True)
class Run:
    """What came of a run. Its `str` is the summary; empty for a single image.

    Parameters
    ----------
    predictions : list of Prediction
        In the order of what was named.
    is_single : bool
        Whether one image was named, and not many.
    save_path : path or None
        Where the results are.
    """

    predictions: list[Prediction]
    is_single: bool
    save_path: PathLike | None

    @property
    def result(self) -> Prediction | list[Prediction]:
        """The prediction of a single image, or the list."""
        return self.predictions[0] if self.is_single else self.predictions

    def __str__(self) -> str:
        if self.is_single:
            return ""
        return summary(count_verdicts(self.predictions), self.save_path)


def predict(
    model: StoredModel,
    path: PredictInput,
    save_path: PathLike,
    *,
    save: bool,
    show: bool,
    maps: bool,
    **options: Any,
) -> Run:
    """Inspect what was named, with progress on stderr.

    Parameters
    ----------
    model : StoredModel
        The model.
    path, save_path, save, show, maps
        See `AD.predict`.
    **options
        `resume`, and those of `Inspector`.
    """
    sources = find_sources(path, deep=_is_deep(model))
    if sources.passed_over:
        say(f"Skipped, not inspected: {sources.passed_over}")
    results = _inspected(
        model,
        sources,
        check_path(save_path, "save_path") if save else None,
        draw=save or show,
        keep_maps=maps or sources.single,
        progress=True,
        **options,
    )
    predictions = []
    with closing(results):
        where = f"Look at those in {save_path}." if save else "save=True saves them."
        for result in _shown(results, where) if show else results:
            if result.prediction.error is not None:
                say(result.prediction.error)
            predictions.append(result.prediction)
    return Run(predictions, sources.single, save_path if save else None)


def stream(
    model: StoredModel, paths: PredictInput, save_path: PathLike | None, **options: Any
) -> Generator[Prediction, None, None]:
    """Inspect what was named, one prediction after the other.

    Arguments are checked now; images are read when the results are drawn.

    Parameters
    ----------
    model : StoredModel
        The model.
    paths, save_path
        See `AD.stream`.
    **options
        `resume`, `progress`, and those of `Inspector`.
    """
    sources = find_sources(paths, deep=_is_deep(model))
    if sources.passed_over:
        warnings.warn(f"Skipped, not inspected: {sources.passed_over}", stacklevel=3)
    results = _inspected(
        model,
        sources,
        save_path,
        draw=save_path is not None,
        keep_maps=True,
        promptly=sources.count is None,
        **options,
    )
    return _predictions(results)


def _is_deep(model: StoredModel) -> bool:
    return model.manifest.plan.framing.deep


def _inspected(
    model: StoredModel,
    sources: Sources,
    save_path: PathLike | None,
    *,
    resume: bool,
    progress: bool,
    promptly: bool = False,
    **options: Any,
) -> Generator[Inspected, None, None]:
    inspector = Inspector(model, **options)
    output = None
    if save_path is not None:
        output = Output(save_path, sources, inspector.about, resume=resume)
    elif resume:
        raise OptionError("resume continues a saved run; it needs save=True.")
    return inspector.run(sources, output, progress=progress, promptly=promptly)


def _predictions(results: Generator[Inspected, None, None]) -> Generator[Prediction, None, None]:
    with closing(results):
        for result in results:
            yield result.prediction


def _shown(results: Iterator[Inspected], where: str) -> Iterator[Inspected]:
    """Pass results on; show the first pictures on the way."""
    left = _SHOWN
    for result in results:
        if left and result.picture is not None:
            title = f"{result.source.name}: {result.verdict}"
            shown = screen.show(result.picture, title, where)
            left = left - 1 if shown else 0  # what cannot be shown once is not tried again
        yield result


def look(model: StoredModel, path: PathLike) -> Image:
    """Look at one image as the model does; see `AD.test_img`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        The picture, RGB; shown as well where there is a display or a notebook.

    Raises
    ------
    ImageError, PathError
        The file cannot be read.
    """
    picture = Inspector(model).compare(path)
    screen.show(
        picture,
        str(path),
        'The picture is returned: cv2.imwrite("look.png", picture[..., ::-1]) saves it.',
    )
    return picture

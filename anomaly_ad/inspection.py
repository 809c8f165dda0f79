"""The way of an image through a finished model: source -> prediction, picture and record.

Nothing here knows the method, and nothing here needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from . import drawing
from .calibration import check_threshold
from .errors import ImageError, OptionError, OutputError, PathError
from .images import Image, PathLike, check_path
from .images.sources import Source, Sources
from .model_store import StoredModel
from .prediction import Prediction
from .progress import bar, printable
from .records import RunRecord, cannot_write, file_state
from .regions import check_patch_size, deviating_cells, peak_cell
from .runtime.engine import Outputs
from .threads import ordered_map

# Of photographs: 8 times as fast as the default, and a tenth larger. The filter is new in OpenCV 5.
_FAST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _FAST_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
PICTURES = {".png": _FAST_PNG, ".bmp": [], ".dib": [], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95]}
PICTURES |= {suffix: [cv2.IMWRITE_JPEG_QUALITY, 95] for suffix in _JPEG}
_LARGEST_SIDE = {".webp": 16_383} | dict.fromkeys(_JPEG, 65_500)  # pixels

_JUDGED = ("score", "anomaly_map")  # outputs that a verdict is made of

R = TypeVar("R")


@dataclass(frozen=True)
class Result:
    """A prediction with what it was made of, as long as someone works on it."""

    source: Source
    prediction: Prediction
    picture: Image | None

    @property
    def verdict(self) -> str:
        """In words, for people."""
        prediction = self.prediction
        if prediction.error is not None:
            return "not inspected"
        return f"{'ANOMALOUS' if prediction.is_anomalous else 'good'}, score {prediction.score:.2f}"


class Output:
    """The output folder of a run: pictures and records, and never a byte in the input.

    Use it as a context manager. A picture lies at `folder` plus its source's relative path; see
    `picture_name`.

    Parameters
    ----------
    folder : path
        The output folder; made if it is not there.
    sources : Sources
        What is inspected.
    about : dict
        The model's digest and the options of the run, for the record.
    resume : bool
        Go on with the last such run.

    Raises
    ------
    OptionError
        The output folder is the input folder or lies in it, or a picture would replace an input;
        or arrays are to be resumed, which have no names to be known by.
    """

    def __init__(
        self, folder: PathLike, sources: Sources, about: dict[str, Any], *, resume: bool = False
    ) -> None:
        self.folder = check_path(folder, "save_path")
        self._record = RunRecord(self.folder, about, resume=resume)
        self._resume = resume
        # Links are resolved on both sides: the input may hold some, and so may the output folder.
        self._home = _real(self.folder)
        if isinstance(sources.items, list):
            self._keep_out_of(sources.items, sources.root)

    def _keep_out_of(self, sources: list[Source], root: Path | None) -> None:
        """All that is going to be read is known: nothing of it is written to."""
        paths = [source.path for source in sources if source.path is not None]
        parents = {path.parent: _real(path.parent) for path in paths}
        # Both what was named and what it leads to.
        input_files = {_real(path) for path in paths}
        input_files |= {parents[path.parent] / path.name for path in paths}
        input_folders: set[Path] = set()
        if root is not None:
            between = {root}
            for parent in parents:
                between |= {parent, *(p for p in parent.parents if p.is_relative_to(root))}
            input_folders = {_real(folder) for folder in between}
        if not input_folders.isdisjoint((self._home, *self._home.parents)):
            raise OptionError(
                f"The output folder {self.folder} is or lies in the input folder {root}. "
                "Choose a save_path outside it; predict never writes into its input."
            )
        real: dict[Path, Path] = {}  # of each folder that pictures go into
        for source in sources:
            self._refuse_arrays(source)
            parent = self._home / source.relative.parent
            if parent not in real:
                real[parent] = _real(parent)
            place = real[parent]
            inside = not input_folders.isdisjoint((place, *place.parents))
            if inside or place / picture_name(source.relative).name in input_files:
                raise self._into_input(source)

    def admit(self, source: Source) -> None:
        """Check an image that was drawn from an iterator, when what else comes is not known.

        Raises
        ------
        OptionError
            It lies in the output folder, or its picture would replace it; or it is an array where
            a run is resumed.
        """
        self._refuse_arrays(source)
        if source.path is None:
            return
        picture = self._home / picture_name(source.relative)
        files = {_real(source.path), _real(source.path.parent) / source.path.name}
        if any(file.is_relative_to(self._home) for file in files):
            raise OptionError(
                f"{source.name} lies in the output folder {self.folder}. Choose another save_path; "
                "predict never writes into its input."
            )
        if _real(picture.parent) / picture.name in files:
            raise self._into_input(source)

    def _into_input(self, source: Source) -> OptionError:
        return OptionError(
            f"The picture of {source.name} would be written into the input. Choose another "
            f"save_path than {self.folder}."
        )

    def _refuse_arrays(self, source: Source) -> None:
        if self._resume and source.path is None:
            raise OptionError(
                "resume knows images by their paths; arrays have none. Leave resume out."
            )

    def __enter__(self) -> Self:
        self._record.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._record.__exit__(*exception)

    def said(self, source: Source) -> Prediction | None:
        """What the run that is resumed has said of an image; what failed then is tried again."""
        before = self._record.done.get(file_state(source.path)) if self._record.done else None
        if before is None or before.error is not None:
            return None
        return dataclasses.replace(before, path=str(source.path))

    def record(self, result: Result) -> None:
        """Append a result to the record."""
        source = result.source
        self._record.append(source.name, result.prediction, file_state(source.path))

    def write_picture(self, result: Result) -> None:
        """Write a result's picture, in the format of its source's name."""
        if result.picture is not None:
            write_picture(result.picture, self.folder / picture_name(result.source.relative))


def picture_name(image: Path) -> Path:
    """Where the picture of an image goes: its own name, with ".png" behind one that few can show.

    JPEG, PNG, BMP and WebP pictures keep the format of their image.
    """
    return image if image.suffix.lower() in PICTURES else image.with_name(f"{image.name}.png")


def write_picture(picture: Image, target: Path) -> None:
    """Write a picture in the format of its name (PNG if that is none); whole or not at all.

    JPEG holds at most 65,500 pixels a side, WebP 16,383; a larger picture is shrunk to that.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
        RGB.
    target : Path
        Folders on the way are made; a file there is replaced.
    """
    suffix = target.suffix.lower() if target.suffix.lower() in PICTURES else ".png"
    height, width, _ = picture.shape
    largest = _LARGEST_SIDE.get(suffix, max(height, width))
    if max(height, width) > largest:
        scale = largest / max(height, width)
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    data = encode_picture(picture, suffix)
    unfinished = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        os.replace(unfinished, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(target.parent, error) from error
        raise


def encode_picture(picture: NDArray[np.uint8], suffix: str) -> bytes:
    """The bytes of a picture file.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3) or (H, W, 4)
        RGB, or RGBA for a PNG.
    suffix : str
        ".png", ".jpg", ".bmp", ".webp" or another of these.

    Raises
    ------
    OutputError
        The format cannot hold a picture of this size.
    """
    kind = {".jpe": ".jpg", ".jfif": ".jpg", ".dib": ".bmp"}.get(suffix, suffix)
    swap = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    written, data = cv2.imencode(kind, cv2.cvtColor(picture, swap), PICTURES[suffix])
    if not written:
        raise OutputError(
            f"A picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be written as "
            f"{suffix}. Choose another format by the output's name, or save=False."
        )
    return data.tobytes()


def _real(path: Path) -> Path:
    """A path with its links resolved; one that is none is refused when it is opened."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(os.path.abspath(path))


@dataclass(frozen=True, eq=False)
class Inspected:
    """An image with all that is known of it, as long as someone works on it.

    Parameters
    ----------
    source : Source
        Where it comes from.
    image : ndarray of uint8, shape (H, W, 3)
        The photograph, RGB.
    prediction : Prediction
        What is said of it.
    outputs : dict of str to ndarray
        The model's raw outputs, a batch of one.
    """

    source: Source
    image: Image
    prediction: Prediction
    outputs: Outputs


class Witness(Protocol):
    """Sees each image that is inspected, and what is said of it; for a report, for example."""

    def look(self, one: Inspected) -> Any:
        """Take what is needed of an image; called in threads."""

    def add(self, path: Path, kind: str | None, prediction: Prediction, seen: Any) -> None:
        """Take the verdict with what `look` gave, in the order of the images.

        `kind` is "good", the name of a defect, or None where nobody has judged. `seen` is None
        for an image that could not be inspected.
        """


@dataclass(frozen=True)
class _Loaded:
    source: Source
    image: Image | None
    prepared: Image | None
    error: str | None


class Inspector:
    """Runs a stored model over images.

    Parameters
    ----------
    stored : StoredModel
        The model.
    threshold : float
        Score in [0, 1] above which an image is anomalous.
    patch_size : int
        Side of the cells of boxes in pixels of the model's input; 0 for the model's own.
    hardcore : bool
        Draw boxes instead of the heatmap.
    draw : bool
        Whether pictures are made at all.
    keep_maps : bool
        Whether predictions hold their anomaly map.
    """

    def __init__(
        self,
        stored: StoredModel,
        *,
        threshold: float = 0.8,
        patch_size: int = 0,
        hardcore: bool = False,
        draw: bool = False,
        keep_maps: bool = True,
    ) -> None:
        check_threshold(threshold)
        plan = stored.manifest.plan
        if patch_size != 0 or isinstance(patch_size, bool):
            check_patch_size(patch_size, plan.spec.size)
        self.engine = stored.engine
        self.digest = stored.digest
        self.detector = stored.detector
        self.spec = plan.spec
        self.calibration = stored.manifest.calibration
        self.threshold = float(threshold)
        self.patch_size = int(patch_size) or plan.patch_size
        self.hardcore = bool(hardcore)
        self.draw = draw
        self.keep_maps = keep_maps
        self._raw_threshold = self.calibration.image.raw(self.threshold)
        maxima = self.calibration.map
        self._raw_map_threshold = None if maxima is None else maxima.raw(self.threshold)

    @property
    def about(self) -> dict[str, Any]:
        """What makes predictions comparable: the model and the options, for the record."""
        return {
            "model": self.digest,
            "detector": self.detector,
            "threshold": self.threshold,
            "patch_size": self.patch_size,
            "hardcore": self.hardcore,
        }

    def run(
        self,
        sources: Sources,
        output: Output | None = None,
        *,
        progress: bool = False,
        promptly: bool = False,
    ) -> Generator[Result, None, None]:
        """Inspect what was named, and save as we go; results in order.

        Parameters
        ----------
        sources : Sources
            What to inspect. What is wrong with a single image is raised; among many it becomes a
            prediction with an error.
        output : Output, optional
            Where to save. What a resumed run has said already is passed on as it was.
        progress : bool
            Whether to show a bar.
        promptly : bool
            Whether the result of an image comes before the next one is drawn; otherwise some are
            under way at a time, which is faster.
        """
        order: deque[Result | None] = deque()  # None: a result that is still to come

        def fresh() -> Iterator[Source]:
            for source in sources.items:
                if output is not None and sources.count is None:
                    output.admit(source)
                before = None if output is None else output.said(source)
                order.append(None if before is None else Result(source, before, None))
                if before is None:
                    yield source

        then = None if output is None else output.write_picture
        with ExitStack() as stack:
            if output is not None:
                stack.enter_context(output)
            # Closed before the output is, so that an interrupt leaves no thread that still writes.
            if promptly or sources.single:
                found = self._one_by_one(fresh(), then, may_fail=not sources.single)
            else:
                found = self.stream(fresh(), then)
            stack.enter_context(closing(found))
            shown = progress and not sources.single
            step = stack.enter_context(bar(sources.count, "Inspecting", shown=shown))
            for result in found:
                while (before := order.popleft()) is not None:
                    step("")
                    yield before
                if output is not None:
                    output.record(result)
                step("")
                yield result
            for before in order:
                assert before is not None
                step("")
                yield before

    def _one_by_one(
        self,
        sources: Iterable[Source],
        then: Callable[[Result], None] | None,
        *,
        may_fail: bool,
    ) -> Generator[Result, None, None]:
        """Inspect one image after the other; where none `may_fail`, what is wrong is raised."""
        for source in sources:
            loaded = self._load(source) if may_fail else self._prepare(source, source.read())
            outputs = None
            if loaded.prepared is not None:
                outputs = self.engine.run(loaded.prepared[None], _JUDGED)
            result = self._finish(loaded, outputs)
            if then is not None:
                then(result)
            yield result

    def inspect(self, image: Image) -> Prediction:
        """Inspect one image from any thread, beside those of other threads.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3)
            RGB.
        """
        outputs = self.engine.run_beside(self.spec.prepare(image)[None], _JUDGED)
        return self._judge(None, image.shape[:2], outputs, self._calibrated_map(outputs))

    def stream(
        self, sources: Iterable[Source], then: Callable[[Result], None] | None = None
    ) -> Generator[Result, None, None]:
        """Inspect many, decoding and finishing in threads around the model; results in order.

        An image that cannot be read gives a prediction with an error. At most a few images are
        in memory at a time.

        Parameters
        ----------
        sources : iterable of Source
            What to inspect.
        then : callable, optional
            Called with each result in a thread, for example to write its picture.
        """

        def finish(pair: tuple[_Loaded, Outputs | None]) -> Result:
            result = self._finish(*pair)
            if then is not None:
                then(result)
            return result

        return self._run(sources, finish)

    def scan(
        self, sources: Iterable[Source], work: Callable[[Inspected], R]
    ) -> Generator[tuple[Prediction, R | None], None, None]:
        """Predictions, each with what `work` makes of the raw outputs; in order.

        Parameters
        ----------
        sources : iterable of Source
            What to inspect.
        work : callable
            Called in a thread for each image that was inspected.
        """

        def finish(pair: tuple[_Loaded, Outputs | None]) -> tuple[Prediction, R | None]:
            loaded, outputs = pair
            prediction = self._finish(loaded, outputs).prediction
            if prediction.error is not None or loaded.image is None or outputs is None:
                return prediction, None
            return prediction, work(Inspected(loaded.source, loaded.image, prediction, outputs))

        return self._run(sources, finish)

    def _run(
        self,
        sources: Iterable[Source],
        finish: Callable[[tuple[_Loaded, Outputs | None]], R],
    ) -> Generator[R, None, None]:
        loaded = ordered_map(self._load, sources)
        prepared = ((one, one.prepared) for one in loaded)
        return ordered_map(finish, self.engine.stream(prepared, _JUDGED))

    def _load(self, source: Source) -> _Loaded:
        try:
            image = source.read()
        except (ImageError, PathError) as error:
            return _Loaded(source, None, None, str(error))
        return self._prepare(source, image)

    def _prepare(self, source: Source, image: Image) -> _Loaded:
        return _Loaded(source, image, self.spec.prepare(image), None)

    def _finish(self, loaded: _Loaded, outputs: Outputs | None) -> Result:
        source = loaded.source
        path = None if source.path is None else str(source.path)
        if loaded.image is None or outputs is None:
            error = loaded.error or "not inspected"
            return Result(source, Prediction.failed(path, self.threshold, error), None)
        anomaly_map = self._calibrated_map(outputs)
        prediction = self._judge(path, loaded.image.shape[:2], outputs, anomaly_map)
        picture = None
        if self.draw and prediction.error is None:
            picture = self._picture(loaded.image, prediction, anomaly_map)
        return Result(source, prediction, picture)

    def _calibrated_map(self, outputs: Outputs) -> NDArray[np.float32] | None:
        if self.calibration.map is None or not (self.draw or self.keep_maps):
            return None
        scores: NDArray[np.float32] = self.calibration.map.score(outputs["anomaly_map"][0])
        return scores

    def _judge(
        self,
        path: str | None,
        image_size: tuple[int, int],
        outputs: Outputs,
        anomaly_map: NDArray[np.float32] | None,
    ) -> Prediction:
        raw = float(outputs["score"][0])
        if not np.isfinite(raw):
            return Prediction.failed(path, self.threshold, f"the model's score is {raw}")
        is_anomalous = raw > self._raw_threshold
        boxes = np.empty((0, 4), np.int32)
        if is_anomalous and self._raw_map_threshold is not None:
            cells = self.spec.without_padding(outputs["anomaly_map"][0], image_size)
            found = deviating_cells(cells, self.patch_size, self._raw_map_threshold)
            if not len(found):
                found = peak_cell(cells, self.patch_size)
            boxes = self.spec.boxes_to_original(found, image_size)
        score = float(self.calibration.image.score(raw))
        kept = anomaly_map if self.keep_maps else None
        return Prediction(path, image_size, score, raw, self.threshold, is_anomalous, kept, boxes)

    def _picture(
        self, image: Image, prediction: Prediction, anomaly_map: NDArray[np.float32] | None
    ) -> Image:
        if self.calibration.map is None:
            return drawing.frame(image) if prediction.is_anomalous else image.copy()
        if self.hardcore:
            return drawing.draw_boxes(image, prediction.boxes)
        if anomaly_map is None:
            return image.copy()
        return drawing.heatmap(image, anomaly_map, self.spec)

    def compare(self, image: Image) -> Image:
        """The original beside its reconstruction or, where there is none, beside its heatmap.

        For a method without maps the picture on the right has a frame if the image is anomalous.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3)
            RGB.

        Returns
        -------
        ndarray of uint8, shape (H, 2 W + gap, 3)
        """
        size = image.shape[:2]
        outputs = self.engine.run(self.spec.prepare(image)[None])
        if "reconstruction" in outputs:
            rebuilt = drawing.to_rgb(outputs["reconstruction"][0])
            right = self.spec.map_to_original(rebuilt, size)
        else:
            anomaly_map = self._calibrated_map(outputs)
            prediction = self._judge(None, size, outputs, anomaly_map)
            right = self._picture(image, prediction, anomaly_map)
        return drawing.side_by_side(image, right)


def count_verdicts(predictions: Iterable[Prediction]) -> Counter[str]:
    """How many predictions are "good", "anomalous" and "errors"."""
    return Counter(
        "errors" if p.error is not None else "anomalous" if p.is_anomalous else "good"
        for p in predictions
    )


def summary(counts: Counter[str], output: PathLike | None) -> str:
    """A run in one line: how many images, verdicts and errors, and where the results are."""
    images = f"{counts.total()} image{'' if counts.total() == 1 else 's'}"
    line = f"Inspected {images}: {counts['anomalous']} anomalous, {counts['good']} good"
    if counts["errors"]:
        line += f", {counts['errors']} could not be inspected"
    return line if output is None else printable(f"{line}. Results: {output}")

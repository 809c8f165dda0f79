"""The way of an image through a finished model: source -> prediction, picture and record.

Nothing here knows the method, and nothing here needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from collections import Counter
from collections.abc import Callable, Generator, Iterable
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
from .images import (
    SUFFIXES,
    Image,
    PathLike,
    check_array,
    is_image,
    is_pil,
    list_images,
    read_image,
)
from .model_store import StoredModel
from .prediction import Prediction
from .progress import bar, printable
from .records import FileState, RunRecord, cannot_write, file_state
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

# A path or an image in memory: an RGB array, or an image of Pillow (of which nothing is imported).
OneInput = PathLike | NDArray[np.uint8] | Any
PredictInput = OneInput | Iterable[OneInput]


@dataclass(frozen=True, eq=False)
class Source:
    """An image to inspect: a file, or one in memory, and the relative path of its picture."""

    name: str
    path: Path | None
    image: Any
    relative: Path

    def read(self) -> Image:
        """The image, RGB uint8 (H, W, 3)."""
        if self.image is not None:
            return check_array(self.image)
        assert self.path is not None
        return read_image(self.path)


@dataclass(frozen=True)
class Sources:
    """What a call of predict is about.

    Parameters
    ----------
    items : list of Source
        In order.
    single : bool
        Whether one image was named, so that one prediction comes back.
    root : Path or None
        The folder that was named, if it was one.
    passed_over : str
        Files in it that look like images and are not inspected, in words.
    """

    items: list[Source]
    single: bool
    root: Path | None
    passed_over: str = ""


def find_sources(path: Any) -> Sources:
    """An image file, a folder, a list of either files or images, or an image -> the images.

    Raises
    ------
    PathError, OptionError, ImageError, DataError
        There is nothing there, or it is something else.
    """
    if is_pil(path) or (isinstance(path, np.ndarray) and path.dtype.kind not in "OUS"):
        if not is_pil(path) and path.ndim == 4 and len(path):
            if path.dtype != np.uint8 or path.shape[3] not in (1, 3, 4):
                check_array(path)  # says what it is, and what to do
            return Sources([_image_source(i, image) for i, image in enumerate(path)], False, None)
        return Sources([_image_source(0, path)], True, None)
    if isinstance(path, (str, os.PathLike)):
        return _path_sources(Path(path))
    if _is_no_list(path):
        check_array(path)  # says what it is, and what to do
    if not isinstance(path, Iterable):
        raise OptionError(
            "predict takes an image file, a folder, a list of files or images, or an RGB array. "
            f"Received: {path!r}."
        )
    return Sources(_list_sources(list(path)), False, None)


def _is_no_list(path: Any) -> bool:
    """Whether something that can be iterated over is an image of another library, or a table."""
    if hasattr(path, "columns"):
        raise OptionError(
            "predict takes a list of files. Received a table; pass its column of paths: "
            "table['path']."
        )
    is_array = hasattr(path, "shape") and hasattr(path, "dtype") and not hasattr(path, "index")
    is_numeric = isinstance(path, (bytes, bytearray, memoryview)) or is_array
    return is_numeric and not isinstance(path, np.ndarray)


def _path_sources(path: Path) -> Sources:
    if os.path.isdir(path):
        listing = list_images(path)
        if not listing.images:
            found = f" Found instead: {listing.passed_over}." if listing.passed_over else ""
            raise PathError(
                f"{path} holds no images. Expected files ending in {' '.join(SUFFIXES)}, any case."
                f"{found}"
            )
        items = [Source(str(f), f, None, f.relative_to(path)) for f in listing.images]
        return Sources(items, False, path, listing.passed_over)
    if not os.path.lexists(path):
        raise PathError(
            f"{path}: there is no such file or folder, or it may not be read. Check the path."
        )
    return Sources([Source(str(path), path, None, Path(path.name))], True, None)


def _image_source(index: int, image: Any) -> Source:
    name = f"array_{index:05d}.png"
    return Source(name, None, image, Path(name))


def _list_sources(listed: list[Any]) -> list[Source]:
    if not listed:
        raise OptionError("The list of images to predict is empty.")
    for item in listed:
        if not isinstance(item, (str, os.PathLike)) and not is_image(item):
            if hasattr(item, "shape") or isinstance(item, (bytes, bytearray, memoryview)):
                check_array(item)  # says what it is, and what to do
            raise OptionError(f"A list to predict holds paths or images. Received: {item!r}.")
    paths = [Path(os.path.abspath(item)) for item in listed if not is_image(item)]
    # Pictures keep what tells the paths apart: a/1.png and b/1.png must not become one.
    common = os.path.commonpath([path.parent for path in paths]) if paths else ""
    sources = []
    for index, item in enumerate(listed):
        if is_image(item):
            sources.append(_image_source(index, item))
        else:
            relative = Path(os.path.relpath(item, common))
            sources.append(Source(str(item), Path(item), None, relative))
    return sources


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
        self.folder = Path(folder)
        self._record = RunRecord(self.folder, about, resume=resume)
        self._keep_out_of_input(sources)
        if resume and any(source.path is None for source in sources.items):
            raise OptionError(
                "resume knows images by their paths; arrays have none. Leave resume out."
            )

    def _keep_out_of_input(self, sources: Sources) -> None:
        # Links are resolved on both sides: the input may hold some, and so may the output folder.
        home = _real(self.folder)
        paths = [source.path for source in sources.items if source.path is not None]
        parents = {path.parent: _real(path.parent) for path in paths}
        # Both what was named and what it leads to.
        input_files = {_real(path) for path in paths}
        input_files |= {parents[path.parent] / path.name for path in paths}
        input_folders: set[Path] = set()
        if sources.root is not None:
            between = {sources.root}
            for parent in parents:
                between |= {parent, *(p for p in parent.parents if p.is_relative_to(sources.root))}
            input_folders = {_real(folder) for folder in between}
        if not input_folders.isdisjoint((home, *home.parents)):
            raise OptionError(
                f"The output folder {self.folder} is or lies in the input folder {sources.root}. "
                "Choose a save_path outside it; predict never writes into its input."
            )
        real: dict[Path, Path] = {}  # of each folder that pictures go into
        for source in sources.items:
            parent = home / source.relative.parent
            if parent not in real:
                real[parent] = _real(parent)
            place = real[parent]
            inside = not input_folders.isdisjoint((place, *place.parents))
            if inside or place / picture_name(source.relative).name in input_files:
                raise OptionError(
                    f"The picture of {source.name} would be written into the input. Choose "
                    f"another save_path than {self.folder}."
                )

    def __enter__(self) -> Self:
        self._record.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._record.__exit__(*exception)

    @property
    def done(self) -> dict[FileState, Prediction]:
        """What the run that is resumed has said already, by the states of the files."""
        return self._record.done

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
        self, sources: Sources, output: Output | None = None, *, progress: bool = False
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
        """
        with ExitStack() as stack:
            said: dict[Source, Prediction] = {}
            if output is not None and stack.enter_context(output).done:
                for source in sources.items:
                    before = output.done.get(file_state(source.path))
                    if before is not None:
                        said[source] = dataclasses.replace(before, path=str(source.path))
            items = [source for source in sources.items if source not in said]
            # Closed before the output is, so that an interrupt leaves no thread that still writes.
            fresh = stack.enter_context(
                closing(
                    self._single(items[0], output)
                    if sources.single and items
                    else self.stream(items, None if output is None else output.write_picture)
                )
            )
            shown = progress and not sources.single
            step = stack.enter_context(bar(len(sources.items), "Inspecting", shown=shown))
            for source in sources.items:
                if source in said:
                    result = Result(source, said[source], None)
                else:
                    result = next(fresh)
                    if output is not None:
                        output.record(result)
                step("")
                yield result

    def _single(self, source: Source, output: Output | None) -> Generator[Result, None, None]:
        image = source.read()  # what is wrong with the only image is raised
        outputs = self.engine.run(self.spec.prepare(image)[None], _JUDGED)
        result = self._finish(_Loaded(source, image, None, None), outputs)
        if output is not None:
            output.write_picture(result)
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
    line = (
        f"Inspected {counts.total()} images: {counts['anomalous']} anomalous, {counts['good']} good"
    )
    if counts["errors"]:
        line += f", {counts['errors']} could not be inspected"
    return line if output is None else printable(f"{line}. Results: {output}")

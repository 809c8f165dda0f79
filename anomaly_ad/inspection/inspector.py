"""The way of an image through a finished model: source -> prediction, picture and record.

Nothing here knows the method, and nothing here needs TensorFlow.
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..drawing import pictures as drawing
from ..errors import ImageError, OptionError, PathError, PoseError
from ..images import Image, PathLike, Photograph, Taken, image_digest, of_pages
from ..images.sources import Source, Sources
from ..model import StoredModel, check_patch_size, check_threshold
from ..runtime import Outputs
from ..support import bar, ordered_map, printable, say
from .output import Output
from .prediction import Prediction
from .regions import Region, deviating_cells, marked, outlines, regions

_AFTER_MODEL = ("score", "anomaly_map")  # outputs that a verdict is made of

# The score of an image that cannot be brought into pose: above what a model says.
OUT_OF_POSE = 1 - 1e-6

R = TypeVar("R")

# A source; its image, or why it cannot be read; what the model takes of it, or why that is nothing.
_Read = tuple[Source, Photograph | str, Taken | str]


@dataclass(frozen=True, eq=False)
class Decision:
    """What a model says of an image, and what was made of it.

    Parameters
    ----------
    prediction : Prediction
        The verdict, and where the image deviates.
    outputs : dict of str to ndarray
        The model's raw outputs, see `images.Framing.merge`.
    marks : ndarray of bool, shape `map_size`, or None
        Which pixels of the map deviate, see `regions.marked`; None for a method without maps.
    taken : Taken or None
        What the model took of the image; None where that is nothing.
    """

    prediction: Prediction
    outputs: Outputs
    marks: NDArray[np.bool_] | None = None
    taken: Taken | None = None


@dataclass(frozen=True, eq=False)
class Inspected:
    """What came of an image, as long as someone works on it.

    Parameters
    ----------
    source : Source
        Where it comes from.
    prediction : Prediction
        What is said of it.
    photograph : Photograph or None
        The photograph; None where it could not be inspected, or was in an earlier run.
    taken : Taken or None
        What the model took of it, see `images.Framing.take`; None where that is nothing.
    outputs : dict of str to ndarray
        The model's raw outputs for it, see `images.Framing.merge`; empty where there is none.
    picture : ndarray of uint8, shape (H, W, 3), or None
        What shows the verdict, where pictures are made.
    """

    source: Source
    prediction: Prediction
    photograph: Photograph | None = None
    taken: Taken | None = None
    outputs: Outputs = field(default_factory=dict)
    picture: Image | None = None

    @property
    def photo(self) -> Photograph:
        """The photograph, where it is known to be there."""
        assert self.photograph is not None
        return self.photograph

    @functools.cached_property
    def digest(self) -> str:
        """Of what the model took, or of the photograph where that is nothing."""
        return image_digest(self.photo.pixels if self.taken is None else self.taken.views)

    @property
    def verdict(self) -> str:
        """In words, for people."""
        prediction = self.prediction
        if prediction.error is not None:
            return "not inspected"
        return f"{'ANOMALOUS' if prediction.is_anomalous else 'good'}, score {prediction.score:.2f}"


class Observer(Protocol):
    """Sees each image that is inspected, and what is said of it; for a report, for example."""

    def look(self, one: Inspected, mask: NDArray[np.bool_] | None = None) -> Any:
        """Take what is needed of an image; called in threads.

        `mask` says where its defect is, shape (H, W) of the photograph; None where that is not
        known.
        """

    def add(self, path: Path, kind: str | None, prediction: Prediction, seen: Any) -> None:
        """Take the verdict with what `look` gave, in the order of the images.

        `kind` is "good", the name of a defect, or None where it has no label. `seen` is None
        for an image that could not be inspected.
        """


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
    hardcore, merge_boxes, regions, annotate, side_by_side : bool
        What pictures show, see `AD.predict`.
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
        merge_boxes: bool = False,
        regions: bool = False,
        annotate: bool = False,
        side_by_side: bool = False,
        draw: bool = False,
        keep_maps: bool = True,
    ) -> None:
        check_threshold(threshold)
        if merge_boxes and not hardcore:
            raise OptionError("merge_boxes merges the boxes of hardcore=True. Give both.")
        plan = stored.manifest.plan
        if patch_size != 0 or isinstance(patch_size, bool):
            check_patch_size(patch_size, plan.framing.size)
        self.engine = stored.engine
        self.digest = stored.digest
        self.detector = stored.detector
        self.framing = plan.framing
        self.calibration = stored.manifest.calibration
        self.threshold = float(threshold)
        self.patch_size = int(patch_size) or plan.patch_size
        self.draw = draw
        self.keep_maps = keep_maps
        self._cell = max(round(self.patch_size * self.framing.map_scale), 1)  # in the map
        self._raw_threshold = self.calibration.image.raw(self.threshold)
        self._hardcore = bool(hardcore)
        self._pictures = {  # beyond the heatmap
            "merge_boxes": bool(merge_boxes),
            "regions": bool(regions),
            "annotate": bool(annotate),
            "side_by_side": bool(side_by_side),
        }

    @property
    def about(self) -> dict[str, Any]:
        """What makes predictions comparable: the model and the options, for the record."""
        return {
            "model": self.digest,
            "detector": self.detector,
            "threshold": self.threshold,
            "patch_size": self.patch_size,
            "hardcore": self._hardcore,
            **{name: value for name, value in self._pictures.items() if value},
        }

    def run(
        self,
        sources: Sources,
        output: Output | None = None,
        *,
        progress: bool = False,
        promptly: bool = False,
    ) -> Generator[Inspected, None, None]:
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
        order: deque[Inspected | None] = deque()  # None: a result that is still to come

        def fresh() -> Iterator[Source]:
            for source in sources.items:
                if output is not None and sources.count is None:
                    output.admit(source)
                before = None if output is None else output.said(source)
                order.append(None if before is None else Inspected(source, before))
                if before is None:
                    yield source

        def finish(one: Inspected) -> Inspected:
            if output is not None and one.picture is not None:
                output.write_picture(one.source, one.picture)
            return one

        with ExitStack() as stack:
            if output is not None:
                stack.enter_context(output)
            # Closed before the output is, so that an interrupt leaves no thread that still writes.
            found = self._each(
                fresh(), finish, promptly=promptly or sources.single, may_fail=not sources.single
            )
            stack.enter_context(closing(found))
            shown = progress and not sources.single
            step = stack.enter_context(bar(sources.count, "Inspecting", shown=shown))
            for one in found:
                while (before := order.popleft()) is not None:
                    step("")
                    yield before
                if output is not None:
                    output.record(one.source, one.prediction)
                step("")
                yield one
            for before in order:
                assert before is not None
                step("")
                yield before

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

        def finish(one: Inspected) -> tuple[Prediction, R | None]:
            return one.prediction, None if one.photograph is None else work(one)

        return self._each(sources, finish)

    def inspect(
        self, photo: Photograph, path: str | None = None, *, alone: bool = False
    ) -> Decision:
        """Inspect one image from any thread.

        Parameters
        ----------
        photo : Photograph
            The image.
        path : str, optional
            What the prediction says of where it comes from.
        alone : bool
            Whether nothing else is under way, so that this image gets all cores; otherwise it is
            inspected alongside those of other threads.

        Raises
        ------
        ImageError
            Its values are not of the kind that the model has learnt.
        """
        try:
            taken = photo.take()
        except PoseError as error:
            return self._out_of_pose(path, photo, str(error))
        run = self.engine.inspect if alone else self.engine.inspect_concurrently
        return self._decide(path, taken, run(taken, self.framing, _AFTER_MODEL))

    def _each(
        self,
        sources: Iterable[Source],
        work: Callable[[Inspected], R],
        *,
        promptly: bool = False,
        may_fail: bool = True,
    ) -> Generator[R, None, None]:
        """The way of every image: read, frame, run, decide, then what `work` makes of it; in order.

        Threads read before the model and decide after it, so at most a few images are in memory;
        or, `promptly`, one image after the other. An image that cannot be read gives a prediction
        with an error where it `may_fail`; otherwise the error is raised.
        """
        stacks: list[bool] = []
        workers = self.engine.device.n_threads

        def read(source: Source) -> tuple[_Read, Taken | None]:
            try:
                photo = source.read(self.framing)
                taken = _take(photo)
            except (ImageError, PathError) as error:
                if not may_fail:
                    raise
                return (source, str(error), ""), None
            if photo.n_pages > 1:
                stacks.append(True)
            return (source, photo, taken), None if isinstance(taken, str) else taken

        def decide(pair: tuple[_Read, Outputs | None]) -> R:
            (source, photo, taken), outputs = pair
            return work(self._inspected(source, photo, taken, outputs or {}))

        def one_by_one() -> Generator[R, None, None]:
            for source in sources:
                item, seen = read(source)
                outputs = None
                if seen is not None:
                    outputs = self.engine.inspect(seen, self.framing, _AFTER_MODEL)
                yield decide((item, outputs))

        def in_order() -> Generator[R, None, None]:
            if promptly:
                found = one_by_one()
            else:
                streamed = self.engine.inspect_all(
                    ordered_map(read, sources, workers=workers), self.framing, _AFTER_MODEL
                )
                found = ordered_map(decide, streamed, workers=workers)
            with closing(found):
                yield from found
            if stacks:
                say(of_pages(len(stacks)))

        return in_order()

    def _inspected(
        self, source: Source, photo: Photograph | str, taken: Taken | str, outputs: Outputs
    ) -> Inspected:
        path = str(source.path) if source.path is not None else None
        if source.is_named:
            path = source.name
        if isinstance(photo, str):
            return Inspected(source, Prediction.failed(path, self.threshold, photo))
        if isinstance(taken, str):
            decision = self._out_of_pose(path, photo, taken)
        else:
            decision = self._decide(path, taken, outputs)
        if decision.prediction.error is not None:
            return Inspected(source, decision.prediction)
        picture = self.picture(photo.picture(), decision) if self.draw else None
        return Inspected(source, decision.prediction, photo, decision.taken, outputs, picture)

    def _out_of_pose(self, path: str | None, photo: Photograph, reason: str) -> Decision:
        """What is said of an image of which the model can take nothing: it is anomalous."""
        raw = self.calibration.image.raw(OUT_OF_POSE)
        prediction = Prediction(
            path,
            photo.size,
            OUT_OF_POSE,
            float(raw),
            self.threshold,
            True,
            None,
            np.empty((0, 4), np.int32),
            reason=reason,
        )
        return Decision(prediction, {})

    def _decide(self, path: str | None, taken: Taken, outputs: Outputs) -> Decision:
        raw = float(outputs["score"])
        if not np.isfinite(raw):
            error = f"the model's score is {raw}"
            return Decision(Prediction.failed(path, self.threshold, error), outputs)
        is_anomalous = raw > self._raw_threshold
        limit = self.calibration.map
        boxes = np.empty((0, 4), np.int32)
        found: tuple[Region, ...] = ()
        marks = None
        if limit is not None:
            shown = taken.where_counted(outputs["anomaly_map"])
            marks = marked(shown, limit, self.threshold, is_anomalous=is_anomalous)
            if is_anomalous:
                cells = deviating_cells(marks, self._cell)
                boxes = taken.boxes_to_original(cells)
                found = regions(marks, shown, limit, taken)
        prediction = Prediction(
            path,
            taken.size,
            float(self.calibration.image.score(raw)),
            raw,
            self.threshold,
            is_anomalous,
            self._calibrated_map(outputs) if self.keep_maps else None,
            boxes,
            regions=found,
        )
        return Decision(prediction, outputs, marks, taken)

    def _calibrated_map(self, outputs: Outputs) -> NDArray[np.float32] | None:
        if self.calibration.map is None:
            return None
        scores: NDArray[np.float32] = self.calibration.map.score(outputs["anomaly_map"])
        return scores

    def picture(self, image: Image, decision: Decision) -> Image:
        """What shows the verdict.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3)
            The photograph, RGB, see `images.Photograph.picture`.
        decision : Decision
            What was said of it; no error.

        Returns
        -------
        ndarray of uint8, shape (H', W', 3)
            RGB; larger than the photograph where something stands next to it.
        """
        prediction = decision.prediction
        out = self._marked_picture(image, decision)
        if self._pictures["side_by_side"]:
            out = drawing.side_by_side(image, out)
        if self._pictures["annotate"]:
            assert prediction.score is not None
            verdict = "ANOMALOUS" if prediction.is_anomalous else "good"
            # Cut, not rounded: no score looks as if it were above the threshold that is not.
            words = f"{verdict}  score {int(1000 * prediction.score) / 1000:.3f}"
            words += f"  threshold {prediction.threshold:g}"
            if prediction.reason is not None:
                words = f"{verdict}  {prediction.reason}"
            out = drawing.annotated(out, words, is_anomalous=bool(prediction.is_anomalous))
        return out

    def _marked_picture(self, image: Image, decision: Decision) -> Image:
        prediction, marks, taken = decision.prediction, decision.marks, decision.taken
        if taken is not None:
            image = drawing.draw_edge(image, taken.edge())
        if not prediction.is_anomalous:
            return image.copy()
        if marks is None or taken is None:
            return drawing.frame(image)
        out = image
        if self._pictures["regions"]:
            out = drawing.draw_outlines(out, [region.contour for region in prediction.regions])
        if self._pictures["merge_boxes"]:
            return drawing.draw_outlines(out, self._merged(marks, taken))
        if self._hardcore:
            return drawing.draw_boxes(out, prediction.boxes)
        if self._pictures["regions"]:
            return out
        scores = self._calibrated_map(decision.outputs)
        assert scores is not None
        return drawing.heatmap(image, scores, marks, taken, self.threshold)

    def _merged(self, marks: NDArray[np.bool_], taken: Taken) -> list[NDArray[np.int32]]:
        """Outlines of the boxes, neighbours as one."""
        cells = np.zeros_like(marks)
        for x1, y1, x2, y2 in deviating_cells(marks, self._cell).tolist():
            cells[y1:y2, x1:x2] = True
        return [taken.points_to_original(one) for one in outlines(cells)]

    def compare(self, path: PathLike) -> Image:
        """The original next to its reconstruction or, where there is none, next to its heatmap.

        For a method without maps the picture on the right has a frame if the image is anomalous.

        Parameters
        ----------
        path : path
            An image file.

        Returns
        -------
        ndarray of uint8, shape (H, 2 W + gap, 3)
        """
        photo = Photograph.read(path, self.framing)
        image, taken = photo.picture(), _take(photo)
        if isinstance(taken, str):
            right = self.picture(image, self._out_of_pose(None, photo, taken))
            return drawing.side_by_side(image, right)
        outputs = self.engine.inspect(taken, self.framing)
        if "reconstruction" in outputs:
            right = taken.map_to_original(drawing.to_rgb(outputs["reconstruction"]))
        else:
            right = self.picture(image, self._decide(None, taken, outputs))
        return drawing.side_by_side(image, right)


def _take(photo: Photograph) -> Taken | str:
    """What a model takes of a photograph, or why it cannot be brought into pose."""
    try:
        return photo.take()
    except PoseError as error:
        return str(error)


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

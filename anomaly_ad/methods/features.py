"""Feature maps of images, computed once and read as often as a method wants."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..images import Framing, ImageSet
from ..runtime import Engine
from ..support import Spool
from ..workers import current

if TYPE_CHECKING:
    from .base import StatisticalDetector

Features = dict[str, NDArray[Any]]


class FeatureSet:
    """The feature maps of each image of a set, by name, in temporary files; in order.

    Iterating yields batches, indexing with integers or a slice those images: dictionaries of arrays
    of shape (B, ...), one after the other for each view of each image. Maps of one view may have
    different grids. Use it as a context manager: leaving it removes the files.

    Parameters
    ----------
    maps : dict of str to Spool or ndarray, shape (V, ...)
        Of the same length V, the number of views; arrays may have the shape (N, T, ...) instead.
    tiles : sequence of sequence of int, optional
        Which tiles the views of each image show; None for as many views of each as arrays have.
    per_epoch : int, optional
        As of `ImageSet`.
    """

    BATCH = 128  # views; the features of so many are in memory at a time

    def __init__(
        self,
        maps: Mapping[str, Spool | NDArray[Any]],
        tiles: Sequence[Sequence[int]] | None = None,
        per_epoch: int | None = None,
    ) -> None:
        self._maps = maps
        self.per_epoch = per_epoch
        if tiles is None:
            arrays = [np.asarray(some) for some in maps.values()]
            count, n_views = arrays[0].shape[:2]
            tiles = [range(n_views)] * count
            self._maps = {
                name: some.reshape(-1, *some.shape[2:])
                for name, some in zip(maps, arrays, strict=True)
            }
        self._tiles = tiles
        self._ends = np.cumsum([len(some) for some in tiles])

    @classmethod
    def compute(
        cls,
        engine: Engine,
        images: ImageSet,
        step: Callable[[str], None] = lambda _: None,
        *,
        dtype: DTypeLike = np.float32,
    ) -> Self:
        """Run a frozen network over all images, in OpenVINO.

        Parameters
        ----------
        engine : Engine
            uint8 images -> named feature maps.
        images : ImageSet
            What it takes.
        step : callable, optional
            Called after each image, for a progress bar.
        dtype : dtype
            Of features in the files; float16 takes half of the room.

        Raises
        ------
        OutputError
            The temporary files do not fit on the disk.
        """
        with ExitStack() as stack:
            maps: dict[str, Spool] = {}
            tiles: list[Sequence[int]] = []

            ends: deque[bool] = deque()  # of the views under way: whether it is its image's last

            def views() -> Iterator[NDArray[np.uint8]]:
                for image in images.singly():
                    tiles.append(image.tiles)
                    for number, view in enumerate(image.views, 1):
                        ends.append(number == len(image.views))
                        yield view[None]

            for index, outputs in enumerate(current().map(_Frozen(engine), views())):
                for name, values in outputs.items():
                    if name not in maps:
                        kept = dtype if values.dtype == np.float32 else values.dtype
                        spool = Spool(images.total_views, values.shape[1:], kept)
                        maps[name] = stack.enter_context(spool)
                    maps[name][index] = values[0]
                if ends.popleft():
                    step("")
            stack.pop_all()
        return cls(maps, tiles, images.per_epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for items in self._maps.values():
            if isinstance(items, Spool):
                items.close()

    def gather(
        self,
        detector: StatisticalDetector,
        step: str,
        into: Any,
        indices: NDArray[np.integer] | None = None,
    ) -> Any:
        """Add features to a statistic of a detector, and return it.

        Parameters
        ----------
        detector : StatisticalDetector
            The detector.
        step : {"look", "learn"}
            Its method that does it.
        into
            The statistic.
        indices : ndarray of int, optional
            Which images; None for all.
        """
        add = getattr(detector, step)
        for batch in self if indices is None else self.batches(indices):
            add(into, batch)
        return into

    def scored(
        self,
        detector: StatisticalDetector,
        statistic: Any,
        indices: NDArray[np.integer],
        framing: Framing,
        *,
        has_learnt: bool,
    ) -> Iterator[tuple[int, Features]]:
        """What a statistic says of some of the images, each with its index.

        Parameters
        ----------
        detector : StatisticalDetector
            The detector.
        statistic
            What is known.
        indices : ndarray of int
            Which images.
        framing : Framing
            How what is said of their views is put together.
        has_learnt : bool
            Whether it has learnt them, so that each is scored as if it had not; see
            `StatisticalDetector.unseen_scorer`.
        """
        score = (detector.unseen_scorer if has_learnt else detector.scorer)(statistic)
        assert score is not None
        return self.scored_by(score, indices, framing)

    def scored_by(
        self,
        score: Callable[[Features], Features],
        indices: NDArray[np.integer],
        framing: Framing,
    ) -> Iterator[tuple[int, Features]]:
        """As `scored`, by what scores a batch of features."""
        merger = framing.merger()
        views = self.tiles(indices)
        for batch in self.batches(indices):
            outputs = score(batch)
            # The batch ends first, so that no view is drawn in vain.
            for number, (index, tile, is_last) in zip(
                range(len(outputs["score"])), views, strict=False
            ):
                part = slice(number, number + 1)
                merger.add(tile, {name: values[part] for name, values in outputs.items()})
                if is_last:
                    yield index, merger.result()
                    merger = framing.merger()

    def renamed(self, names: Mapping[str, str]) -> FeatureSet:
        """These maps under other names, as new names by the present ones; not to be closed."""
        maps = {new: self._maps[present] for present, new in names.items()}
        return FeatureSet(maps, self._tiles, self.per_epoch)

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, indices: NDArray[np.integer] | slice) -> Features:
        if isinstance(indices, slice):
            indices = np.arange(len(self))[indices]
        return self._features(self._rows(indices))

    def __iter__(self) -> Iterator[Features]:
        return self.batches(np.arange(len(self)))

    def batches(self, indices: NDArray[np.integer]) -> Iterator[Features]:
        """The views of some of the images, in batches."""
        rows = self._rows(indices)
        for start in range(0, len(rows), self.BATCH):
            yield self._features(rows[start : start + self.BATCH])

    def tiles(self, indices: NDArray[np.integer]) -> Iterator[tuple[int, int, bool]]:
        """Of each of these views: its image, its tile, and whether it is the last of its image."""
        for index in indices.tolist():
            last = len(self._tiles[index]) - 1
            for number, tile in enumerate(self._tiles[index]):
                yield index, tile, number == last

    def _rows(self, indices: NDArray[np.integer]) -> NDArray[np.integer]:
        """Where the views of some of the images are."""
        counts = np.diff(self._ends, prepend=0)
        parts = [np.arange(self._ends[n] - counts[n], self._ends[n]) for n in indices]
        return np.concatenate(parts) if parts else np.empty(0, np.intp)

    def _features(self, rows: NDArray[np.integer]) -> Features:
        return {name: np.asarray(items[rows]) for name, items in self._maps.items()}


@dataclass(frozen=True)
class _Frozen:
    """The job of running a network over views."""

    engine: Engine

    def start(self) -> Callable[[Iterable[NDArray[np.uint8]]], Iterable[Features]]:
        def run(views: Iterable[NDArray[np.uint8]]) -> Iterator[Features]:
            for _, outputs in self.engine.stream((None, each) for each in views):
                assert outputs is not None
                yield outputs

        return run

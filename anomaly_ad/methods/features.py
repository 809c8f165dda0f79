"""Feature maps of images, computed once and read as often as a method wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..images import ImageSet
from ..runtime.engine import Engine
from ..support.spool import Spool

Features = dict[str, NDArray[np.floating]]


class FeatureSet:
    """The feature maps of each image of a set, by name, in temporary files; in order.

    Iterating yields batches, indexing with integers or a slice those images: dictionaries of arrays
    of shape (B, ...). Maps of one image may have different grids. Use it as a context manager:
    leaving it removes the files.

    Parameters
    ----------
    maps : dict of str to Spool or ndarray
        Of the same length.
    """

    BATCH = 128  # images; the features of so many are in memory at a time

    def __init__(self, maps: Mapping[str, Spool | NDArray[np.floating]]) -> None:
        self._maps = maps

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
            Of the files; float16 takes half of the room.

        Raises
        ------
        OutputError
            The temporary files do not fit on the disk.
        """
        with ExitStack() as stack:
            maps = {
                name: stack.enter_context(Spool(len(images), engine.output_shape(name), dtype))
                for name in engine.output_names
            }
            singles = ((None, image) for batch in images for image in batch)
            for index, (_, outputs) in enumerate(engine.stream(singles)):
                assert outputs is not None
                for name, spool in maps.items():
                    spool[index] = outputs[name][0]
                step("")
            stack.pop_all()
        return cls(maps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for items in self._maps.values():
            if isinstance(items, Spool):
                items.close()

    def __len__(self) -> int:
        return len(next(iter(self._maps.values())))

    def __getitem__(self, indices: NDArray[np.integer] | slice) -> Features:
        if isinstance(indices, slice):
            indices = np.arange(len(self))[indices]
        return {name: np.asarray(items[indices]) for name, items in self._maps.items()}

    def __iter__(self) -> Iterator[Features]:
        return self.batches(np.arange(len(self)))

    def batches(self, indices: NDArray[np.integer]) -> Iterator[Features]:
        """Some of the images, in batches."""
        for start in range(0, len(indices), self.BATCH):
            yield self[indices[start : start + self.BATCH]]

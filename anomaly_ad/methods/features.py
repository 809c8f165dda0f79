"""Feature maps of images, computed once and read as often as a method wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..images import ImageSet
from ..runtime import Engine
from ..support import Spool

Features = dict[str, NDArray[Any]]


class FeatureSet:
    """The feature maps of each image of a set, by name, in temporary files; in order.

    Iterating yields batches, indexing with integers or a slice those images: dictionaries of arrays
    of shape (B, ...), one after the other for each view of each image. Maps of one view may have
    different grids. Use it as a context manager: leaving it removes the files.

    Parameters
    ----------
    maps : dict of str to Spool or ndarray, shape (N, T, ...)
        Of the same length N, the number of images, with T views each.
    """

    BATCH = 128  # images; the features of so many are in memory at a time

    def __init__(self, maps: Mapping[str, Spool | NDArray[Any]]) -> None:
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
            Of features in the files; float16 takes half of the room.

        Raises
        ------
        OutputError
            The temporary files do not fit on the disk.
        """
        with ExitStack() as stack:
            maps: dict[str, Spool] = {}
            each = ((None, views) for views in images.singly())
            for index, (_, outputs) in enumerate(engine.stream(each)):
                assert outputs is not None
                for name, values in outputs.items():
                    if name not in maps:
                        kept = dtype if values.dtype == np.float32 else values.dtype
                        spool = Spool(len(images), values.shape, kept)
                        maps[name] = stack.enter_context(spool)
                    maps[name][index] = values
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
        chosen = {name: np.asarray(items[indices]) for name, items in self._maps.items()}
        return {name: some.reshape(-1, *some.shape[2:]) for name, some in chosen.items()}

    def __iter__(self) -> Iterator[Features]:
        return self.batches(np.arange(len(self)))

    def batches(self, indices: NDArray[np.integer]) -> Iterator[Features]:
        """Some of the images, in batches."""
        for start in range(0, len(indices), self.BATCH):
            yield self[indices[start : start + self.BATCH]]

"""Equal arrays in a temporary file instead of in memory."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import OutputError


class Spool:
    """A list of arrays of one shape, written once and read any number of times, by any thread.

    Plain reads and writes rather than a memory map: the pages of a map count as this process's
    memory, so that it would seem to grow with the number of items, and be killed for it where
    memory is limited. Use it as a context manager: leaving it removes the file.

    Parameters
    ----------
    count : int
        Number of items.
    shape : tuple of int
        Shape of an item.
    dtype : dtype
        Type of an item's values.

    Raises
    ------
    OutputError
        The temporary file does not fit on the disk.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._count = count
        self._size = math.prod(shape) * self.dtype.itemsize
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="anomaly_ad-"))
        needed, free = count * self._size, shutil.disk_usage(self._folder).free
        if needed > free:
            self.close()
            raise OutputError(
                f"{needed / 1e6:,.0f} MB of temporary space are needed in {self._folder.parent}, "
                f"where {free / 1e6:,.0f} MB are free. Make room, or point the environment "
                "variable TMPDIR at a larger disk."
            )
        self._file = (self._folder / "items").open("w+b", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        if hasattr(self, "_file"):
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __len__(self) -> int:
        return self._count

    def __setitem__(self, index: int, item: NDArray[Any]) -> None:
        data = np.ascontiguousarray(item, self.dtype)
        if data.shape != self.shape:
            raise ValueError(f"An item has the shape {self.shape}. Received: {data.shape}.")
        try:
            with self._lock:
                self._file.seek(index * self._size)
                if self._file.write(data.data) != self._size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OutputError(
                f"The temporary file in {self._folder} cannot be written ({error.strerror}). Make "
                "room, or point the environment variable TMPDIR at a larger disk."
            ) from error

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        out = np.empty((len(indices), *self.shape), self.dtype)
        with self._lock:
            for item, index in zip(out, indices, strict=True):
                self._file.seek(int(index) * self._size)
                self._file.readinto(item.data)
        return out

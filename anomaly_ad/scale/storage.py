"""Files on this machine's disks and in object stores, by path or address."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from ..errors import ImageError, OutputError, PathError
from ..images import PathLike, check_path

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)  # not a drive such as C:\


def is_address(name: object) -> bool:
    """Whether it is an address such as s3://bucket/folder, and not a path."""
    return isinstance(name, str) and _ADDRESS.match(name) is not None


@dataclass(frozen=True)
class Storage:
    """A folder, or a file, that is known by its path or address.

    Parameters
    ----------
    name : str
        An absolute path, or an address: s3://, gs://, file://, or of any other file system that
        fsspec knows.
    """

    name: str

    @classmethod
    def of(cls, name: PathLike, what: str) -> Storage:
        """Errors as `check_path`; a path is made absolute."""
        if is_address(name):
            return cls(str(name).rstrip("/"))
        return cls(os.path.abspath(check_path(name, what)))

    @property
    def is_local(self) -> bool:
        """Whether it is a path."""
        return not is_address(self.name)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        if self.is_local:
            return pafs.LocalFileSystem(), self.name
        try:
            system, path = pafs.FileSystem.from_uri(self.name)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return self._by_fsspec()
        except OSError as error:
            raise PathError(f"{self.name} cannot be reached: {error}") from error
        return system, path

    def _by_fsspec(self) -> tuple[Any, str]:
        scheme = _ADDRESS.match(self.name)
        assert scheme is not None
        try:
            import fsspec

            system, path = fsspec.core.url_to_fs(self.name)
        except (ImportError, ValueError) as error:
            raise PathError(
                f"{self.name}: addresses of {scheme[1]}:// cannot be opened here ({error}). Use "
                "s3://, gs:// or file://, or install the package that fsspec names."
            ) from error
        return pafs.PyFileSystem(pafs.FSSpecHandler(system)), path

    @property
    def system(self) -> Any:
        """The file system of pyarrow."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """The path in it."""
        return self._opened[1]

    def inside(self, *names: str) -> Storage:
        """What lies in this folder."""
        return Storage("/".join([self.name, *names]))

    def info(self) -> Any:
        """Type, size and time of change; PathError where it cannot be reached."""
        try:
            return self.system.get_file_info(self.path)
        except OSError as error:
            raise PathError(f"{self.name} cannot be reached: {error}") from error

    @property
    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return self.info().type != pafs.FileType.NotFound

    def read(self) -> bytes:
        """The whole file; ImageError where it cannot be read."""
        try:
            with self.system.open_input_file(self.path) as file:
                return file.read()
        except FileNotFoundError as error:
            raise ImageError(f"{self.name}: there is no such file.") from error
        except OSError as error:
            raise ImageError(f"{self.name} cannot be read: {error}") from error

    def write(self, data: Any) -> None:
        """Write a file, whole or not at all; OutputError where that is impossible."""
        parent = self.path.rpartition("/")[0]
        unfinished = f"{parent}/.{secrets.token_hex(8)}.tmp" if self.is_local else self.path
        try:
            if self.is_local:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            else:
                self.system.create_dir(parent, recursive=True)
            try:
                with self.system.open_output_stream(unfinished) as file:
                    file.write(data)
                if self.is_local:  # an object store makes a file visible when it is whole
                    os.replace(unfinished, self.path)
            except BaseException:
                if self.is_local:
                    with suppress(OSError):
                        Path(unfinished).unlink()
                raise
        except OSError as error:
            raise OutputError(
                f"{self.name} cannot be written ({error}). Make room, or choose another output."
            ) from error

    def remove(self) -> None:
        """Remove the file or folder, if it is there."""
        with suppress(FileNotFoundError, OSError):
            if self.info().type == pafs.FileType.Directory:
                self.system.delete_dir(self.path)
            elif self.exists:
                self.system.delete_file(self.path)

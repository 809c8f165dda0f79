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
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.fs as pafs

from ..errors import ImageError, OutputError, PathError
from ..images import PathLike, check_path

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)  # not a drive such as C:\
_OPTIONS = re.compile(r"\?\w+=[^/]*$")  # of a store: ?endpoint_override=...
_STORES = ("s3", "gs", "gcs", "abfs", "abfss")  # folders are a part of names there


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
        """Errors as `check_path`; a path is made absolute, and file:// is one."""
        if not is_address(name):
            return cls(os.path.abspath(check_path(name, what)))
        address = str(name).rstrip("/")
        if address.lower().startswith("file://"):
            rest = address[len("file://") :].removeprefix("localhost")
            return cls(os.path.abspath(url2pathname(rest)))
        return cls(address)

    @property
    def is_local(self) -> bool:
        """Whether it is a path."""
        return not is_address(self.name)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        if self.is_local:
            return pafs.LocalFileSystem(), self.name
        scheme, rest, options = self._parts
        try:
            # Only the bucket: other characters of a name have a meaning in an address.
            bucket = rest.partition("/")[0]
            system, _ = pafs.FileSystem.from_uri(f"{scheme}://{bucket}{options}")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return self._by_fsspec()
        except OSError as error:
            raise PathError(f"{self.name} cannot be reached: {error}") from error
        return system, rest

    @property
    def _parts(self) -> tuple[str, str, str]:
        """Scheme, path with its bucket, and options of the store."""
        match = _ADDRESS.match(self.name)
        assert match is not None
        rest = self.name[match.end() :]
        found = _OPTIONS.search(rest)
        options = found[0] if found else ""
        return match[1].lower(), rest.removesuffix(options), options

    def _by_fsspec(self) -> tuple[Any, str]:
        scheme, _, _ = self._parts
        try:
            import fsspec

            system, path = fsspec.core.url_to_fs(self.name)
        except Exception as error:  # each of its file systems has its own
            raise PathError(
                f"{self.name}: addresses of {scheme}:// cannot be opened here ({error}). Use "
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
        if self.is_local:
            return Storage(os.path.join(self.name, *names))
        scheme, rest, options = self._parts
        return Storage(f"{scheme}://{'/'.join([rest, *names])}{options}")

    def contains(self, other: Storage) -> bool:
        """Whether another is this folder, or lies in it; links are followed."""
        if self.is_local != other.is_local:
            return False
        if self.is_local:
            return Path(os.path.realpath(other.name)).is_relative_to(os.path.realpath(self.name))
        return f"{other.name}/".startswith(f"{self.name}/")

    def info(self) -> Any:
        """Type, size and time of change; PathError where it cannot be reached."""
        try:
            return self.system.get_file_info(self.path)
        except PathError:
            raise
        except Exception as error:
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
        except PathError as error:
            raise ImageError(str(error)) from error
        except FileNotFoundError as error:
            raise ImageError(f"{self.name}: there is no such file.") from error
        except Exception as error:
            raise ImageError(f"{self.name} cannot be read: {error}") from error

    def write(self, data: Any) -> None:
        """Write a file, whole or not at all; OutputError where that is impossible."""
        try:
            if self.is_local:
                self._replace(data)
            elif self._parts[0] in _STORES:  # which show a file when it is whole
                with self.system.open_output_stream(self.path) as file:
                    file.write(data)
            else:
                parent = self.path.rpartition("/")[0]
                unfinished = f"{parent}/.{secrets.token_hex(8)}.tmp"
                self.system.create_dir(parent, recursive=True)
                with self.system.open_output_stream(unfinished) as file:
                    file.write(data)
                self.system.move(unfinished, self.path)
        except PathError:
            raise
        except Exception as error:
            raise OutputError(
                f"{self.name} cannot be written ({error}). Make room, or choose another output."
            ) from error

    def _replace(self, data: Any) -> None:
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.parent / f".{secrets.token_hex(8)}.tmp"
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, target)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise

    def remove(self) -> None:
        """Remove the file or folder, if it is there."""
        with suppress(Exception):
            if self.info().type == pafs.FileType.Directory:
                self.system.delete_dir(self.path)
            elif self.exists:
                self.system.delete_file(self.path)

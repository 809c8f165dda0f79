"""Saving a model directory: files first, then the manifest in one step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..errors import AnomalyADError, OutputError
from .manifest import (
    FORMAT,
    LARGEST,
    MANIFEST,
    PAYLOAD,
    WRONG_VALUES,
    Manifest,
    check_names,
    digest_of,
    read_manifest,
    sha256,
    summary_of,
)

_LOCK_SECONDS = 60.0
_ROLES = {".xml": "detector", ".bin": "detector", ".npz": "state"}
_STALE = 24 * 3600  # seconds after which an unfinished save is taken for a crashed one


class ModelWriter:
    """Writes a model directory: files go into `folder` first, `commit` puts them in place.

    Leaving the context without a commit removes what was written and leaves the directory as it
    was.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.replaced = ""  # the model that the commit took the place of, in words

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for old in self.directory.glob(".unfinished-*"):
                if _is_stale(old):
                    shutil.rmtree(old, ignore_errors=True)
            self.folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self.directory))
        except OSError as error:
            raise _cannot_save(self.directory, error) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, AnomalyADError):
            raise _cannot_save(self.directory, error) from error

    @property
    def xml(self) -> Path:
        """Where the OpenVINO model goes; its weights lie next to it."""
        return self.folder / "detector.xml"

    def write_graph(self, model: ov.Model) -> None:
        """Write the OpenVINO model, its weights uncompressed."""
        try:
            ov.save_model(model, self.xml, compress_to_fp16=False)
            # Before 2026.2 it says nothing of a full disk; what is cut off cannot be read.
            ov.Core().read_model(self.xml)
        except RuntimeError as error:  # its word for a full disk
            raise OutputError(
                f"The model cannot be written to {self.folder} ({error}). Make room or choose "
                "another save_path; a model that was there before is unchanged."
            ) from error

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Write what training needs to go on."""
        odd = [name for name, array in state.items() if np.asarray(array).dtype.hasobject]
        if odd:  # numpy would pickle them
            raise TypeError(f"the state holds objects: {', '.join(odd)}")
        arrays: dict[str, Any] = dict(state)
        np.savez(self.folder / "state.npz", **arrays)

    def commit(self, manifest: Manifest) -> None:
        """Put the files in place, then the manifest in one step; then remove the old files."""
        sources = [self.folder / f"{_ROLES[s]}{s}" for s in (".xml", ".bin", ".npz")]
        # One hash for .xml and .bin, since OpenVINO finds the one by the name of the other.
        hashes = {path.suffix: sha256(path) for path in sources}
        graph = hashlib.sha256((hashes[".xml"] + hashes[".bin"]).encode()).hexdigest()
        with self._alone():
            self._replace(manifest, sources, hashes, graph)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time: what one puts in place another must not remove as old."""
        # Only here: it hooks into forks, and while OpenVINO is imported a thread of it forks.
        from filelock import FileLock, Timeout

        place = Path(os.path.abspath(self.directory))
        lock = FileLock(place.with_name(f".{place.name}.lock"), timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"Another process has been saving a model in {self.directory} for "
                f"{_LOCK_SECONDS:.0f} seconds. Try again when it has ended, or choose another "
                "save_path."
            ) from error
        except (NotImplementedError, OSError):  # a file system without locks
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def _replace(
        self, manifest: Manifest, sources: list[Path], hashes: dict[str, str], graph: str
    ) -> None:
        files = {}
        for path in sources:
            stem = hashes[".npz"] if path.suffix == ".npz" else graph
            target = self.directory / f"{_ROLES[path.suffix]}-{stem[:16]}{path.suffix}"
            files[target.name] = {"sha256": hashes[path.suffix], "size": path.stat().st_size}
            _sync(path)
            os.replace(path, target)
        data = {"format": FORMAT, **manifest.to_dict(), "files": files}
        data["digest"] = digest_of(data)
        self.replaced = summary_of(self.directory)
        fresh = self.folder / MANIFEST
        fresh.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        if fresh.stat().st_size > LARGEST:
            raise OutputError("The manifest would be too large to be read again. Train on fewer.")
        _sync(fresh)
        old = self._named_before()
        _sync(self.directory)
        os.replace(fresh, self.directory / MANIFEST)
        _sync(self.directory)
        for name in (old | self._crashed()) - files.keys():
            (self.directory / name).unlink(missing_ok=True)

    def _crashed(self) -> set[str]:
        """Files that a save put in place long ago; if no manifest names them, it has crashed."""
        named = [path for path in self.directory.iterdir() if PAYLOAD.fullmatch(path.name)]
        return {path.name for path in named if _is_stale(path)}

    def _named_before(self) -> set[str]:
        """The files of the model that is about to be replaced."""
        try:
            return set(check_names(read_manifest(self.directory)["files"]))
        except (AnomalyADError, *WRONG_VALUES):  # none, or one that cannot be read
            return set()


def _is_stale(path: Path) -> bool:
    """Whether a crashed save has left it; not if its own process has removed it meanwhile."""
    try:
        return time.time() - path.stat().st_mtime > _STALE
    except FileNotFoundError:
        return False


def _cannot_save(directory: Path, error: OSError) -> OutputError:
    return OutputError(
        f"The model cannot be saved in {directory} ({error.strerror or error}). Make room or "
        "choose another save_path; a model that was there before is unchanged."
    )


def _sync(path: Path) -> None:
    """Have the system write a file or a folder's list of names to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders, and need not
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

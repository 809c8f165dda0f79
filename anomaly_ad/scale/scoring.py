"""The job of scoring shards: a number comes in, a file of results is written, counts come out."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs as pafs

from ..errors import ModelError, PathError
from ..images import Framing, Photograph
from ..images.sources import Source, Sources, in_folders
from ..inspection import Inspector
from ..inspection.output import PICTURES, encode_picture, picture_name
from ..inspection.records import file_state
from ..model import StoredModel, load
from ..model.manifest import MANIFEST
from ..runtime import Device
from ..workers import beat
from .rows import Row, State, read_rows, row_of, write_rows
from .shards import PathList
from .storage import Storage, is_address

PICTURE_FOLDER = "_pictures"


def part_name(number: int) -> str:
    """The file of a shard."""
    return f"part-{number:05d}.parquet"


@dataclass(frozen=True)
class SentModel:
    """A model directory as bytes: another machine need not see the disk that it lies on.

    Parameters
    ----------
    files : dict of str to bytes
        By name.
    digest : str
        Of the model.
    threads : int or None
        As of `runtime.Device`.
    """

    files: Mapping[str, bytes]
    digest: str
    threads: int | None = None

    @classmethod
    def of(cls, stored: StoredModel, threads: int | None = None) -> SentModel:
        """The directory of a model; ModelError where it cannot be read."""
        try:
            files = {
                name: (stored.directory / name).read_bytes() for name in (MANIFEST, *stored.files)
            }
        except OSError as error:
            raise _replaced(stored.directory) from error
        return cls(files, stored.digest, threads)

    def open(self) -> StoredModel:
        """The model; ModelError where another one had taken its place when it was read."""
        with tempfile.TemporaryDirectory() as name:
            for file, data in self.files.items():
                Path(name, file).write_bytes(data)
            stored = load(name).on(Device(threads=self.threads))
        if stored.digest != self.digest:
            raise _replaced(stored.directory)
        return stored


def _replaced(directory: Path) -> ModelError:
    return ModelError(f"The model in {directory} was replaced after it was loaded. Load it again.")


@dataclass(frozen=True)
class Scoring:
    """The job.

    Parameters
    ----------
    model : SentModel
        The model.
    paths : PathList
        What there is to score.
    n_shards : int
        How many shards that is.
    output : Storage
        Where the results go.
    options : dict
        Of `Inspector`.
    root : str or None
        The folder that was named: pictures keep the paths in it.
    """

    model: SentModel
    paths: PathList
    n_shards: int
    output: Storage
    options: Mapping[str, Any] = field(default_factory=dict)
    root: str | None = None

    def start(self) -> Callable[[Iterable[int]], Iterator[dict[str, Any]]]:
        """Load the model."""
        inspector = Inspector(self.model.open(), keep_maps=False, **self.options)
        return lambda numbers: (self._score(number, inspector) for number in numbers)

    def _score(self, number: int, inspector: Inspector) -> dict[str, Any]:
        place = self.output.inside(part_name(number))
        paths = self.paths.shard(number, self.n_shards)
        before = read_rows(place)
        states = _states(paths)
        rows: dict[str, Row] = {}
        for path in paths:
            row = before.get(path)
            # What failed is tried again.
            # Some stores do not say when a file was changed.
            is_same = row and (row["bytes"], row["modified"]) == states[path] and row["modified"]
            if row and is_same and not row["error"]:
                rows[path] = row
        n_known = len(rows)
        fresh = [path for path in paths if path not in rows]
        sources = [self._source(path) for path in fresh]
        for path, one in zip(fresh, inspector.run(Sources(sources, len(sources))), strict=True):
            picture = None
            if one.picture is not None:
                name = PICTURE_FOLDER / PurePosixPath(picture_name(one.source.relative).as_posix())
                suffix = name.suffix.lower()
                data = encode_picture(one.picture, suffix if suffix in PICTURES else ".png")
                picture = str(name)
                self.output.inside(*name.parts).write(data)
            beat()
            rows[path] = row_of(path, states[path], one.prediction, inspector.digest, picture)
        ordered = [rows[path] for path in paths]
        if fresh or len(before) != len(ordered):
            if ordered:
                write_rows(place, ordered)
            else:
                place.remove()
        verdicts = Counter(row["verdict"] or "errors" for row in ordered)
        n_dropped = sum(path not in rows for path in before)
        return {
            "shard": number,
            "known": n_known,
            "dropped": n_dropped,
            "verdicts": dict(verdicts),
        }

    def _source(self, path: str) -> Source:
        """An image, with the name of its picture."""
        inside = self.root is not None and path.startswith(self.root)
        if is_address(path):
            inner = path[len(self.root or "") :] if inside else path.replace("://", "/")
            parts = [part for part in inner.split("/") if part not in ("", ".", "..")]
            return Distant(path, None, None, Path(*parts), is_named=True)
        whole = Path(path)
        relative = whole.relative_to(self.root) if inside and self.root else in_folders(whole)
        return Source(path, whole, None, relative)


class Distant(Source):
    """An image by its address."""

    def read(self, framing: Framing) -> Photograph:
        """The image; ImageError where it cannot be had."""
        return Photograph.decode(Storage(self.name).read(), self.name, framing)


def _states(paths: Iterable[str]) -> dict[str, State]:
    """Bytes and time of change of each file; None where there is none."""
    found: dict[str, State] = {}
    for path in paths:
        if not is_address(path):
            found[path] = file_state(Path(path))[1:]
            continue
        try:
            info = Storage(path).info()
        except PathError:
            found[path] = None, None
            continue
        is_file = info.type == pafs.FileType.File
        found[path] = (info.size, info.mtime_ns) if is_file else (None, None)
    return found

"""The list of a job: paths, divided into shards by a hash of each.

Where a path belongs does not depend on what else there is: a list that grows leaves the others in
their shards. The list lies next to the results, so that processes on other machines can read it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from secrets import token_hex

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import DataError
from .storage import Storage

LIST = "_list"  # a folder; readers of Parquet pass over names that begin so
_PER_SHARD, _MOST_SHARDS = 256, 16_384  # paths, shards
_IN_MEMORY = 262_144  # paths that are sorted at a time
_BATCH = 65_536
_ROW_GROUP = 32_768
_HASHES = 2**32
_SCHEMA = pa.schema([("hash", pa.int64()), ("path", pa.string())])


def hash_of(path: str) -> int:
    """In [0, 2^32), and the same everywhere; not a secret."""
    return zlib.crc32(path.encode("utf-8", "surrogatepass"))


def shards_for(count: int) -> int:
    """How many shards so many paths are divided into."""
    return min(max(-(-count // _PER_SHARD), 1), _MOST_SHARDS)


@dataclass(frozen=True)
class PathList:
    """Paths in files, sorted by their hash.

    Parameters
    ----------
    folder : Storage
        Where the files are.
    names : tuple of str
        Their names.
    count : int
        Of the paths; those that come twice count twice.
    """

    folder: Storage
    names: tuple[str, ...]
    count: int

    @classmethod
    def write(cls, output: Storage, paths: Iterable[str]) -> PathList:
        """Write a list below the output; DataError where there are no paths."""
        folder = output.inside(LIST, token_hex(8))
        names: list[str] = []
        count = 0
        for table in _tables(paths):
            names.append(f"{len(names):05d}.parquet")
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, row_group_size=_ROW_GROUP)
            folder.inside(names[-1]).write(sink.getvalue())
            count += len(table)
        if not count:
            raise DataError("There are no images to score.")
        return cls(folder, tuple(names), count)

    def shard(self, number: int, of: int) -> list[str]:
        """The paths of a shard, each once, sorted."""
        low, high = -(-number * _HASHES // of), -(-(number + 1) * _HASHES // of)
        wanted = [("hash", ">=", low), ("hash", "<", high)]
        found: set[str] = set()
        for name in self.names:
            place = self.folder.inside(name)
            table = pq.read_table(
                place.path, columns=["path"], filters=wanted, filesystem=place.system
            )
            found.update(table.column("path").to_pylist())
        return sorted(found)


def _tables(paths: Iterable[str]) -> Iterator[pa.Table]:
    """Some of the paths at a time, sorted by hash."""
    batches: list[pa.RecordBatch] = []
    some: list[str] = []

    def end_batch() -> None:
        if some:
            hashes = pa.array(map(hash_of, some), pa.int64(), size=len(some))
            batches.append(pa.record_batch([hashes, pa.array(some)], schema=_SCHEMA))
            some.clear()

    def table() -> pa.Table:
        whole = pa.Table.from_batches(batches, _SCHEMA)
        batches.clear()
        return whole.take(pc.sort_indices(whole["hash"]))

    for path in paths:
        if not path.isprintable():
            _check_text(path)
        some.append(path)
        if len(some) == _BATCH:
            end_batch()
            if len(batches) * _BATCH >= _IN_MEMORY:
                yield table()
    end_batch()
    if batches:
        yield table()


def _check_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path!r}: the name of this file is not valid UTF-8, and Parquet cannot hold it. "
            "Rename it."
        ) from error

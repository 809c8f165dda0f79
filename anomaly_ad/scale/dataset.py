"""A whole job: list, shards, results; it goes on where an earlier one stopped."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import DataError, EngineError, OptionError, OutputError
from ..images import PathLike
from ..inspection import Inspector, summary
from ..model import StoredModel
from ..support import bar
from ..workers import Workers, current, using
from .listing import folders_of, paths_of
from .scoring import Scoring, SentModel
from .shards import LIST, PathList, shards_for
from .storage import Storage

ABOUT = "_dataset.json"
FORMAT = 1
_MOST_PER_SHARD = 4096  # images, where fewer are possible


@dataclass(frozen=True)
class DatasetRun:
    """What came of a job. Its `str` is the summary.

    Parameters
    ----------
    output : str
        The folder of the results: Parquet files with one row for each image.
    counts : Counter of str to int
        How many images are "good", "anomalous" and "errors".
    n_known : int
        How many of them an earlier call had scored.
    n_repeated : int
        How many paths came more than once; each has one row.
    n_dropped : int
        How many rows of an earlier call are gone, since the source no longer names their images.
    """

    output: str
    counts: Counter[str]
    n_known: int
    n_repeated: int
    n_dropped: int = 0

    def __str__(self) -> str:
        lines = [summary(self.counts, self.output)]
        if self.n_known:
            lines.append(f"{self.n_known} of them were scored before and have not changed.")
        if self.n_repeated:
            lines.append(f"{self.n_repeated} paths were named more than once; each has one row.")
        if self.n_dropped:
            lines.append(
                f"{self.n_dropped} rows of an earlier call are gone: the source no longer names "
                "their images."
            )
        return "\n".join(lines)


def predict_dataset(
    stored: StoredModel,
    source: Any,
    output: PathLike,
    workers: Workers,
    **options: Any,
) -> DatasetRun:
    """Score a source into an output folder; see `AD.predict_dataset`.

    Parameters
    ----------
    stored : StoredModel
        The model.
    source, output
        See `AD.predict_dataset`.
    workers : Workers
        Who does it.
    **options
        Those of `Inspector`.
    """
    inspector = Inspector(stored, **options)  # checks them
    place = Storage.of(output, "output")
    folders = folders_of(source)
    for folder in folders:
        if folder.contains(place):
            raise OptionError(
                f"The output {place.name} is, or is inside, the input folder {folder.name}. Choose "
                "another output; nothing is ever written into the input."
            )
    root = folders[0].name if len(folders) == 1 else None
    with ExitStack() as stack:
        if place.is_local:
            stack.enter_context(_alone(place))
            place.inside(LIST).remove()  # of a job that was killed
        n_before = _shards_before(place, inspector.about, bool(options.get("draw")))
        paths = PathList.write(place, _outside(paths_of(source), place))
        stack.callback(paths.folder.remove)
        n_shards = n_before or shards_for(paths.count)
        if paths.count > n_shards * _MOST_PER_SHARD and shards_for(paths.count) > n_shards:
            raise OutputError(
                f"{place.name} was begun with far fewer images, in {n_shards} files; "
                f"{paths.count:,} are too many for these. Choose another output."
            )
        about = {
            "format": FORMAT,
            "shards": n_shards,
            "pictures": bool(options.get("draw")),
            "about": inspector.about,
        }
        place.inside(ABOUT).write(json.dumps(about, indent=1).encode())
        threads = None if workers.spreads else stored.engine.device.threads
        job = Scoring(SentModel.of(stored, threads), paths, n_shards, place, options, root)
        counts: Counter[str] = Counter()
        n_known = n_dropped = 0
        open_shards = set(range(n_shards))
        stack.enter_context(using(workers))
        with bar(paths.count, "Inspecting") as step:
            for done in current().each(job, range(n_shards)):
                counts.update(done["verdicts"])
                n_known += done["known"]
                n_dropped += done["dropped"]
                open_shards.discard(done["shard"])
                for _ in range(sum(done["verdicts"].values())):
                    step("")
    if open_shards:
        raise EngineError(
            f"{len(open_shards)} of {n_shards} parts of the work got no result. Start it again; it "
            "goes on where it stopped."
        )
    n_repeated = paths.count - counts.total()
    return DatasetRun(place.name, counts, n_known, n_repeated, n_dropped)


def _outside(paths: Iterator[str], output: Storage) -> Iterator[str]:
    separator = os.sep if output.is_local else "/"
    inside = tuple({f"{output.name}{separator}", f"{os.path.realpath(output.name)}{separator}"})
    for path in paths:
        if path.startswith(inside):
            raise OptionError(
                f"{path} lies in the output {output.name}. Choose another output; nothing is ever "
                "written into the input."
            )
        yield path


def _alone(place: Storage) -> FileLock:
    """A lock on a folder, which is made."""
    try:
        folder = Path(place.path)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "_lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"Another process is writing results to {place.name}. Wait for it, or choose another "
            "output."
        ) from error
    except OSError as error:
        raise OutputError(
            f"Results cannot be written to {place.name} ({error.strerror or error}). Choose "
            "another output."
        ) from error
    return lock


def _shards_before(place: Storage, about: dict[str, Any], draw: bool) -> int | None:
    """How many shards an earlier call with the same model and options has made; None without one.

    Raises
    ------
    OutputError
        The results there are of another model or other options: they are never replaced.
    """
    file = place.inside(ABOUT)
    if not file.exists:
        return None
    try:
        before = json.loads(file.read())
        known = {name: before[name] for name in ("format", "about", "pictures")}
        n_shards = int(before["shards"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{file.name} is damaged ({error}). Choose another output, or remove this one."
        ) from error
    asked = json.loads(json.dumps({"format": FORMAT, "about": about, "pictures": draw}))
    if known != asked:
        raise OutputError(
            f"{place.name} holds results of another model or of other options, which are kept. "
            "Choose another output."
        )
    return n_shards

"""The record of a run: predictions.jsonl, one line per image, and predictions.csv made from it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from ..errors import AnomalyADError, OutputError
from ..images import page_of
from .prediction import Prediction

JSONL = "predictions.jsonl"
CSV = "predictions.csv"
COLUMNS = ("path", "score", "raw_score", "threshold", "is_anomalous", "n_boxes", "error", "reason")


FileState = tuple[str | None, int | None, int | None]  # absolute path, bytes, time of change in ns
_RUN_ID = re.compile("[0-9a-f]{16}")

# A link in the place of the record could lead into the input: it is not followed. (Windows has no
# such flag, and needs the other one so that it leaves line ends alone.)
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT
_FLAGS |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class RunRecord:
    """Appends the predictions of one run to the record in a folder.

    Earlier runs stay in predictions.jsonl; predictions.csv holds the images of this run and is
    written when the run ends, also when it is interrupted. Use it as a context manager.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    about : dict
        What makes a run comparable: the model's digest and the options; part of every line.
    resume : bool
        Go on with the last run whose lines say the same `about`, if there is one; what it has said
        is in `done` then.
    """

    def __init__(self, folder: Path, about: dict[str, Any], *, resume: bool = False) -> None:
        self.folder = folder
        self.about = about
        self.run_id = secrets.token_hex(8)
        self.done: dict[FileState, Prediction] = {}
        self._resume = resume

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.folder / JSONL, _FLAGS, 0o666)
            self._end_cut_line()
            # Where the lines of this run can begin. What lies before is never read again, so that
            # a run costs the same however long the record is; only to resume one it is searched.
            self._begins = os.lseek(self._file, 0, os.SEEK_END)
            if self._resume:
                self._take_up()
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)
        self._write_csv()

    def _take_up(self) -> None:
        """Find the last run of the same kind, become it, and remember what it has said."""
        same = self.about.items()
        begins: dict[str, int] = {}  # where each run begins
        for position, line in _records(self.folder / JSONL):
            run = line.get("run")
            if same <= line.items() and isinstance(run, str) and _RUN_ID.fullmatch(run):
                self.run_id = run
                begins.setdefault(run, position)
        self._begins = begins.get(self.run_id, self._begins)
        for line in self._own_lines():
            if same <= line.items():
                try:
                    state = (line["file"], line["bytes"], line["modified"])
                    self.done[state] = Prediction.from_dict(line)
                except (AnomalyADError, ArithmeticError, LookupError, TypeError, ValueError):
                    continue  # someone edited it; the image is inspected again

    def append(self, name: str, prediction: Prediction, state: FileState) -> None:
        """Add one line.

        Parameters
        ----------
        name : str
            The image's path; for an array the name of its picture.
        prediction : Prediction
            What was said of it.
        state : tuple
            Of the image's file, as `file_state` gives it; a resumed run knows it by that.
        """
        line = {
            "run": self.run_id,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **self.about,
            **prediction.to_dict(),
            "path": name,
            **dict(zip(("file", "bytes", "modified"), state, strict=True)),
        }
        data = (json.dumps(line) + "\n").encode()
        try:
            # One write of a whole line at the end of the file: neither a kill nor another process
            # that writes to the same record can part it.
            written = os.write(self._file, data)
            if written < len(data):  # the disk is full: take the part of a line back
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise OSError("no space left for a record")
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _end_cut_line(self) -> None:
        """A line that a crash has cut off gets an end, so that the next one stands alone."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        if size:
            os.lseek(self._file, size - 1, os.SEEK_SET)
            if os.read(self._file, 1) != b"\n":
                os.write(self._file, b"\n")

    def _write_csv(self) -> None:
        fresh = self.folder / f".{self.run_id}.csv"
        last: dict[Any, int] = {}  # where a resumed run speaks of a file for the last time
        if self._resume:
            for number, line in enumerate(self._own_lines()):
                last[str(line.get("file"))] = number
        try:
            # A name may hold bytes that are not text; they come out as they went in.
            with fresh.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
                writer.writeheader()
                for number, line in enumerate(self._own_lines()):
                    if last.get(str(line.get("file")), number) == number:
                        writer.writerow(line)
            os.replace(fresh, self.folder / CSV)
        except BaseException as error:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise cannot_write(self.folder, error) from error
            raise

    def _own_lines(self) -> Iterator[dict[str, Any]]:
        lines = _records(self.folder / JSONL, self._begins)
        return (line for _, line in lines if line.get("run") == self.run_id)


def file_state(path: Path | None) -> FileState:
    """What a file is known by: a file that was replaced since is another one. None: an array."""
    if path is None:
        return None, None, None
    name = os.path.abspath(path)
    try:
        status = os.stat(page_of(path)[0])
    except (OSError, ValueError):
        return name, None, None
    return name, status.st_size, status.st_mtime_ns


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a predictions.jsonl one by one; lines that were cut off are passed over."""
    return (line for _, line in _records(path))


def _records(path: Path, begin: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines from a position of the file on, each with its own position."""
    with path.open("rb") as file:
        file.seek(begin)
        position = begin
        for data in file:
            here, position = position, position + len(data)
            try:
                values = json.loads(data.decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                continue
            if isinstance(values, dict):
                yield here, values


def cannot_write(folder: Path, error: OSError) -> OutputError:
    """The error for results that cannot be written."""
    return OutputError(
        f"Results cannot be written to {folder} ({error.strerror or error}). Make room, or choose "
        "another folder."
    )

"""The record of a run: predictions.jsonl, one line per image, and predictions.csv made from it."""

from __future__ import annotations

import csv
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from .errors import AnomalyADError, OutputError
from .prediction import Prediction

JSONL = "predictions.jsonl"
CSV = "predictions.csv"
COLUMNS = ("path", "score", "raw_score", "threshold", "is_anomalous", "n_boxes", "error")


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
        self.done: dict[str, Prediction] = {}
        self._resume = resume

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.folder / JSONL, _FLAGS, 0o666)
            self._end_cut_line()
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
        for line in read_records(self.folder / JSONL):
            if same <= line.items() and isinstance(line.get("run"), str):
                self.run_id = line["run"]
        for line in read_records(self.folder / JSONL):
            if line.get("run") == self.run_id and same <= line.items():
                try:
                    prediction = Prediction.from_dict(line)
                except (AnomalyADError, KeyError, TypeError, ValueError):
                    continue  # someone edited it; the image is inspected again
                self.done[line["path"]] = prediction

    def append(self, name: str, prediction: Prediction) -> None:
        """Add one line.

        Parameters
        ----------
        name : str
            The image's path; for an array the name of its picture.
        prediction : Prediction
            What was said of it.
        """
        line = {
            "run": self.run_id,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **self.about,
            **prediction.to_dict(),
            "path": name,
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
        try:
            with fresh.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
                writer.writeheader()
                for line in read_records(self.folder / JSONL):
                    if line.get("run") == self.run_id:
                        writer.writerow(line)
            os.replace(fresh, self.folder / CSV)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise cannot_write(self.folder, error) from error


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a predictions.jsonl one by one; lines that were cut off are passed over."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values


def cannot_write(folder: Path, error: OSError) -> OutputError:
    """The error for results that cannot be written."""
    return OutputError(
        f"Results cannot be written to {folder} ({error.strerror or error}). Make room, or choose "
        "another save_path."
    )

"""The record of a line: an SQLite database with one row for each image.

A row, what is to be sent of it and where its file is to go are written in one transaction, so
whatever moment a process ends at, the next one knows what is left to do.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from ..errors import OptionError, PathError

FILE = "journal.sqlite"
_FORMAT = 1
_BUSY = 30.0  # seconds that another reader may hold the database
_AT_A_TIME = 1000  # rows in one transaction
_LOCK = 2.0  # seconds; whoever asks for the state holds the lock for a moment

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    size INTEGER,
    modified INTEGER,
    digest TEXT,
    verdict TEXT NOT NULL,
    score REAL,
    raw_score REAL,
    answer TEXT NOT NULL,
    model TEXT NOT NULL,
    picture TEXT,
    arrived REAL NOT NULL,
    begun REAL NOT NULL,
    ended REAL NOT NULL,
    destination TEXT,
    transferred TEXT
);
CREATE INDEX IF NOT EXISTS by_file ON images (path, size, modified);
CREATE INDEX IF NOT EXISTS by_end ON images (ended);
CREATE INDEX IF NOT EXISTS to_transfer ON images (id)
    WHERE destination IS NOT NULL AND transferred IS NULL;
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    receiver TEXT NOT NULL,
    path TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    error TEXT,
    state TEXT NOT NULL DEFAULT 'waiting'
);
CREATE INDEX IF NOT EXISTS by_due ON deliveries (receiver, due, id) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS by_path ON deliveries (receiver, path, id) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS given_up ON deliveries (id) WHERE state = 'given up';
CREATE INDEX IF NOT EXISTS of_image ON deliveries (image);
CREATE TABLE IF NOT EXISTS counts (verdict TEXT PRIMARY KEY, n INTEGER NOT NULL);
"""

WAITING, DELIVERED, GIVEN_UP = "waiting", "delivered", "given up"


@dataclass(frozen=True)
class Row:
    """What came of one image.

    Parameters
    ----------
    path : str
        Below the folder that is watched, with "/"; of a camera the name of the frame.
    size, modified : int or None
        Bytes of the file and its time in ns; of a camera those of the pixels and of the picture's
        taking.
    digest : str or None
        SHA-256 of the bytes; None for what could not be read.
    verdict : {"good", "anomalous", "error"}
        In a word.
    answer : dict
        What receivers get, see `Prediction.answer`; with an `error` instead where there is one.
    model : str
        Digest of the model.
    picture : str or None
        The picture, relative to the output folder.
    arrived, begun, ended : float
        Seconds since the epoch.
    destination : str or None
        The folder that the file is to go to.
    """

    path: str
    size: int | None
    modified: int | None
    digest: str | None
    verdict: str
    answer: dict[str, Any]
    model: str
    picture: str | None
    arrived: float
    begun: float
    ended: float
    destination: str | None = None

    @property
    def key(self) -> str:
        """What the image is known by, everywhere: the same file is the same key."""
        return key_of(self.path, self.size, self.modified, self.digest)


@dataclass(frozen=True)
class Transfer:
    """A file that is to go to another folder."""

    id: int
    key: str
    path: str
    size: int
    modified: int
    digest: str | None
    destination: str
    ended: float


@dataclass(frozen=True)
class Delivery:
    """A verdict that is to be sent."""

    id: int
    key: str
    path: str
    tries: int
    since: float
    answer: dict[str, Any]


def key_of(path: str, size: int | None, modified: int | None, digest: str | None) -> str:
    """32 hexadecimal digits for a file with its content and time."""
    whole = "\0".join(map(str, (path, size, modified, digest)))
    return hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Journal:
    """The record in an output folder, which only one process at a time writes to.

    Use it as a context manager; its methods may be called from any thread.

    Parameters
    ----------
    folder : Path
        The output folder; made if it is not there. It must be on a disk of this machine: SQLite's
        write-ahead log cannot be shared over a network.
    source : str
        What is inspected: the folder that is watched, or the camera. A record belongs to one.

    Raises
    ------
    OptionError
        Another process writes to it, or it belongs to another source.
    OutputError, sqlite3.Error
        It cannot be written.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self._source = source
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        from ..inspection.records import cannot_write

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._process = FileLock(self.folder / ".lock", timeout=_LOCK)
            self._process.acquire()
        except Timeout as error:
            raise OptionError(
                f"Another process writes to {self.folder}. End it, or choose another --output."
            ) from error
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        try:
            self._open()
        except BaseException:
            self._process.release()
            raise
        return self

    def _open(self) -> None:
        from ..errors import OutputError

        try:
            self._base = sqlite3.connect(
                self.folder / FILE, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.execute("PRAGMA foreign_keys = ON")
            self._base.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._belong()
        except sqlite3.Error as error:
            raise OutputError(
                f"The journal in {self.folder} cannot be opened ({error}). Make room, or choose "
                "another --output."
            ) from error

    def _belong(self) -> None:
        about = dict(self._base.execute("SELECT name, value FROM about"))
        if about.setdefault("format", str(_FORMAT)) != str(_FORMAT):
            raise OptionError(
                f"The journal in {self.folder} has the format {about['format']}; this version "
                f"writes {_FORMAT}. Choose another --output."
            )
        if about.setdefault("source", self._source) != self._source:
            raise OptionError(
                f"The journal in {self.folder} belongs to {about['source']}. Choose another "
                "--output, or that source."
            )
        self._base.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._base.close()
        self._process.release()

    def knows(self, path: str, size: int, modified: int) -> bool:
        """Whether a file has its row already."""
        query = "SELECT 1 FROM images WHERE path = ? AND size = ? AND modified = ? LIMIT 1"
        return self._one(query, _text(path), size, modified) is not None

    def has(self, key: str) -> bool:
        """Whether there is a row of this key."""
        return self._one("SELECT 1 FROM images WHERE key = ?", key) is not None

    def add(self, rows: Sequence[Row], receivers: Sequence[str] = ()) -> None:
        """Add rows, with what is to be sent of each, in one transaction; one that is there stays.

        sqlite3.Error where nothing was added, as on a full disk.
        """
        counts: Counter[str] = Counter()
        with self._lock, _transaction(self._base):
            for row in rows:
                raw, score = row.answer.get("raw_score"), row.answer.get("score")
                values = (
                    *(row.key, _text(row.path), row.size, row.modified, row.digest, row.verdict),
                    *(score, raw, json.dumps(row.answer), row.model, _text(row.picture)),
                    *(row.arrived, row.begun, row.ended, _text(row.destination)),
                )
                added = self._base.execute(
                    "INSERT OR IGNORE INTO images (key, path, size, modified, digest, verdict,"
                    " score, raw_score, answer, model, picture, arrived, begun, ended,"
                    f" destination) VALUES ({', '.join('?' * len(values))})",
                    values,
                )
                if not added.rowcount:
                    continue
                counts[row.verdict] += 1
                self._base.executemany(
                    "INSERT INTO deliveries (image, receiver, path, due) VALUES (?, ?, ?, 0)",
                    [(added.lastrowid, receiver, _text(row.path)) for receiver in receivers],
                )
            self._base.executemany(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT (verdict) DO UPDATE SET n = n + ?",
                [(verdict, n, n) for verdict, n in counts.items()],
            )

    def transfers(self, limit: int, after: int = 0) -> list[Transfer]:
        """Files that are still to go to another folder, in the order of their rows."""
        query = (
            "SELECT id, key, path, size, modified, digest, destination, ended FROM images"
            " INDEXED BY to_transfer WHERE destination IS NOT NULL AND transferred IS NULL"
            " AND id > ? ORDER BY id LIMIT ?"
        )
        found = self._all(query, after, limit)
        return [Transfer(a, b, _name(c), d, e, f, _name(g), h) for a, b, c, d, e, f, g, h in found]

    def transferred(self, image: int, where: str) -> None:
        """Note where a file has gone to; "" where it could not go since it was gone."""
        self._do("UPDATE images SET transferred = ? WHERE id = ?", _text(where), image)

    def deliveries(self, receiver: str, now: float, limit: int) -> list[Delivery]:
        """What is due, new ones first; of images of one path only the first that still waits."""
        query = (
            "SELECT d.id, i.key, d.path, d.tries, i.ended, i.answer FROM deliveries d INDEXED BY"
            " by_due JOIN images i ON i.id = d.image WHERE d.receiver = ? AND d.state = 'waiting'"
            " AND d.due <= ? AND NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.receiver ="
            " d.receiver AND e.state = 'waiting' AND e.path = d.path AND e.id < d.id)"
            " ORDER BY d.due, d.id LIMIT ?"
        )
        found = self._all(query, receiver, now, limit)
        return [Delivery(a, b, _name(c), d, e, json.loads(f)) for a, b, c, d, e, f in found]

    def delivered(self, numbers: Iterable[int]) -> None:
        """Note that verdicts have been taken."""
        with self._lock, _transaction(self._base):
            self._base.executemany(
                "UPDATE deliveries SET state = 'delivered', error = NULL WHERE id = ?",
                [(number,) for number in numbers],
            )

    def put_off(self, number: int, due: float, error: str, *, give_up: bool = False) -> None:
        """Note that a verdict was not taken, and when it is tried again."""
        self._do(
            "UPDATE deliveries SET tries = tries + 1, due = ?, error = ?, state = ? WHERE id = ?",
            *(due, error[:500], GIVEN_UP if give_up else WAITING, number),
        )

    def give_up(self, before: float) -> int:
        """Give up verdicts on images that ended before a moment. How many they were."""
        query = (
            "UPDATE deliveries SET state = 'given up' WHERE id IN (SELECT d.id FROM deliveries d"
            " JOIN images i ON i.id = d.image WHERE d.state = 'waiting' AND i.ended < ? LIMIT ?)"
        )
        total = 0
        while True:
            with self._lock, _transaction(self._base):
                changed = self._base.execute(query, (before, _AT_A_TIME)).rowcount
            total += changed
            if changed < _AT_A_TIME:
                return total

    def undelivered(self) -> dict[str, int]:
        """How many verdicts each receiver has not taken yet."""
        query = "SELECT receiver, COUNT(*) FROM deliveries WHERE state = 'waiting' GROUP BY 1"
        return dict(self._all(query))

    def given_up(self) -> int:
        """How many verdicts were never taken by a receiver."""
        found = self._one("SELECT COUNT(*) FROM deliveries WHERE state = 'given up'")
        return 0 if found is None else int(found[0])

    def scores(self, model: str, limit: int) -> list[float]:
        """Raw scores of the last images that this model inspected, newest first."""
        query = (
            "SELECT raw_score FROM (SELECT raw_score, model FROM images ORDER BY id DESC LIMIT ?)"
            " WHERE model = ? AND raw_score IS NOT NULL"
        )
        return [score for (score,) in self._all(query, limit, model)]

    def counts(self) -> Counter[str]:
        """How many images have ever been "good", "anomalous" and "error"."""
        return Counter(dict(self._all("SELECT verdict, n FROM counts")))

    def since(self, moment: float) -> int:
        """How many images ended after a moment."""
        found = self._one("SELECT COUNT(*) FROM images WHERE ended > ?", moment)
        return 0 if found is None else int(found[0])

    def last_error(self) -> tuple[str, str] | None:
        """Path and error of the last image that could not be inspected, of the last hundred."""
        query = (
            "SELECT path, answer FROM (SELECT * FROM images ORDER BY id DESC LIMIT 100)"
            " WHERE verdict = 'error' ORDER BY id DESC LIMIT 1"
        )
        found = self._one(query)
        return None if found is None else (_name(found[0]), json.loads(found[1])["error"])

    def note(self, **values: object) -> None:
        """Keep facts about the process that writes, for `status`."""
        pairs = [(name, str(value)) for name, value in values.items()]
        with self._lock, _transaction(self._base):
            self._base.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", pairs)

    def about(self) -> dict[str, str]:
        """What `note` has kept."""
        return dict(self._all("SELECT name, value FROM about"))

    def older(
        self, moment: float, limit: int, after: tuple[float, int] = (0.0, 0)
    ) -> list[tuple[int, float, str, int | None, int | None, str | None]]:
        """Id, end, path, size, time and picture of images that ended before a moment, in order.

        Those of which something is still to be sent or moved are left out, and those up to
        `after`, an end and id.
        """
        query = (
            "SELECT id, ended, path, size, modified, picture FROM images i WHERE (ended, id) >"
            " (?, ?) AND ended < ? AND (destination IS NULL OR transferred IS NOT NULL) AND NOT"
            " EXISTS (SELECT 1 FROM deliveries d WHERE d.image = i.id AND d.state = 'waiting')"
            " ORDER BY ended, id LIMIT ?"
        )
        found = self._all(query, *after, moment, limit)
        return [(*a, _name(b), c, d, None if e is None else _name(e)) for *a, b, c, d, e in found]

    def forget(self, images: Iterable[int]) -> None:
        """Remove rows."""
        with self._lock, _transaction(self._base):
            self._base.executemany("DELETE FROM images WHERE id = ?", [(n,) for n in images])

    def forget_picture(self, images: Iterable[int]) -> None:
        """Note that the pictures of rows are gone."""
        with self._lock, _transaction(self._base):
            self._base.executemany(
                "UPDATE images SET picture = NULL WHERE id = ?", [(n,) for n in images]
            )

    def _one(self, query: str, *values: object) -> Any:
        with self._lock:
            return self._base.execute(query, values).fetchone()

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._base.execute(query, values).fetchall()

    def _do(self, query: str, *values: object) -> None:
        with self._lock, _transaction(self._base):
            self._base.execute(query, values)


class Reader(Journal):
    """The record as another process may read it, while it is written or later."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")

    def __enter__(self) -> Self:
        file = self.folder / FILE
        if not file.is_file():
            raise PathError(f"{self.folder} holds no journal. Name the --output of watch.")
        try:
            self._base = sqlite3.connect(
                f"{file.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=_BUSY,
                isolation_level=None,
                check_same_thread=False,
            )
            self.about()
        except sqlite3.Error as error:
            raise PathError(f"The journal in {self.folder} cannot be read ({error}).") from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._base.close()

    @property
    def is_written(self) -> bool:
        """Whether a process has it open for writing."""
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that this user may only read
            return time.time() - float(self.about().get("seen", 0)) < 10


class _transaction:  # noqa: N801 - used as a function
    """A transaction at once: a second writer would be refused at its beginning, not its end."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base

    def __enter__(self) -> None:
        self._base.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            try:
                self._base.execute("COMMIT")
                return
            except sqlite3.Error:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        if self._base.in_transaction:
            self._base.execute("ROLLBACK")


def _text(name: str | None) -> str | bytes | None:
    """A name as SQLite can keep it: one with bytes that are not UTF-8 as bytes."""
    if name is None:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape")
    return name


def _name(kept: str | bytes) -> str:
    return kept if isinstance(kept, str) else kept.decode("utf-8", "surrogateescape")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a journal, in their order: for other programs, and for tests.

    Each is a dict with the columns of the table images, `answer` decoded.
    """
    with Reader(folder) as reader, closing(reader._base.cursor()) as cursor:
        cursor.execute("SELECT * FROM images ORDER BY id")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, values, strict=True)) for values in cursor]
    for row in rows:
        row["answer"] = json.loads(row["answer"])
        row["path"] = _name(row["path"])
    return rows

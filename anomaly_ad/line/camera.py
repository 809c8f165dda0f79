"""Cameras and videos: frames that are inspected as they come, the newest first."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, OptionError, PathError
from ..images import Image, Photograph
from ..inspection.inspector import Decision
from ..model import StoredModel
from .keeper import Subject
from .line import Line, Settings, opened

TRIGGERS = ("none", "stdin", "change")
CHANGE = 8.0  # gray levels
_SOONEST, _LATEST = 1.0, 30.0  # seconds between two tries to open a camera
_PATIENCE = 5.0  # seconds for the reader to end
_ASKED = 16  # frames that were asked for and wait
_THUMBNAIL = (64, 48)  # (width, height)
_CHANGED = 0.02  # of a thumbnail's pixels

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """A picture of a camera.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB.
    number : int
        From 1 on, since the camera was opened first.
    taken : float
        Seconds since the epoch.
    name : str
        What triggered it, if that has a name.
    """

    image: Image
    number: int
    taken: float
    name: str = ""


class Capture(Protocol):
    """What is needed of a `cv2.VideoCapture`."""

    def isOpened(self) -> bool:  # noqa: D102, N802
        ...

    def read(self) -> tuple[bool, Any]:  # noqa: D102
        ...

    def release(self) -> None:  # noqa: D102
        ...


@dataclass(frozen=True)
class Camera:
    """Where frames come from, and which of them are inspected.

    Parameters
    ----------
    source : str
        As OpenCV takes it: the number of a device, an RTSP or HTTP URL, a video file, or an image
        sequence such as ``part_%04d.png``.
    every_frames : int
        Each so many-th frame.
    every_seconds : float
        At most one frame in so many seconds.
    trigger : {"none", "stdin", "change"}
        What asks for a verdict: each frame; a line on stdin, whose text names the picture; or
        another picture than the last one inspected, once it lies still.
    change : float
        For "change", by how many gray levels pixels differ that have changed.
    opened : callable
        Opens the source.
    """

    source: str
    every_frames: int = 1
    every_seconds: float = 0.0
    trigger: str = "none"
    change: float = CHANGE
    opened: Callable[[Any], Capture] = cv2.VideoCapture

    def __post_init__(self) -> None:
        if self.trigger not in TRIGGERS:
            raise OptionError(
                f"A trigger is one of {', '.join(TRIGGERS)}. Received: {self.trigger!r}."
            )
        if self.every_frames < 1 or not 0 <= self.every_seconds < float("inf"):
            raise OptionError("every is a number of frames from 1 on, or a time such as 0.5s.")
        if self.trigger != "none" and (self.every_frames > 1 or self.every_seconds):
            raise OptionError("every and trigger both say which frames are inspected. Give one.")
        if not self.change > 0:
            raise OptionError(f"change is greater than 0. Received: {self.change!r}.")

    @property
    def is_live(self) -> bool:
        """Whether frames are lost that nobody fetches: a device or a stream, not a file."""
        if self.source.isdigit() or "://" in self.source:
            return not self.source.startswith("file://")
        try:
            return stat.S_ISCHR(os.stat(self.source).st_mode)  # /dev/video0
        except (OSError, ValueError):
            return False

    @property
    def name(self) -> str:
        """The source without a password in it."""
        return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1@", self.source)

    def open(self) -> Capture:
        """Open it; PathError if that cannot be done."""
        if not self.is_live and "%" not in self.source and not Path(self.source).exists():
            raise PathError(
                f"{self.source}: there is no such video. A source is a device number, a URL, a "
                "video file, or an image sequence such as part_%04d.png."
            )
        capture = self.opened(int(self.source) if self.source.isdigit() else self.source)
        if not capture.isOpened():
            capture.release()
            raise PathError(f"{self.name} cannot be opened. Is it there, and free?")
        return capture


class Frames:
    """Frames of a camera, read in a thread of its own so that the newest is at hand.

    Frames of a live source that come while the last one waits replace it, and are counted as
    dropped if they were to be inspected; those of a file wait. A live source that ends or fails is
    opened again, as often as it takes; a file that ends is over.

    Parameters
    ----------
    camera : Camera
        Where from.
    stop : threading.Event
        Ends it.
    triggers : iterator of str, optional
        The lines that ask for a verdict, for the trigger "stdin"; None for those of stdin.
    """

    def __init__(
        self, camera: Camera, stop: threading.Event, triggers: Iterator[str] | None = None
    ) -> None:
        self.dropped = 0
        self.trouble = ""
        self.failure: Exception | None = None
        self._camera = camera
        self._stop = stop
        self._triggers = triggers
        self._asked: list[str] = []  # names of verdicts that are asked for, oldest first
        self._is_asked_out = False
        self._next: deque[Frame] = deque()
        self._is_over = False
        self._change = threading.Condition()
        self._capture = camera.open()  # a source that is not there at first is an error
        self._last = -np.inf  # when a frame was chosen
        self._resting = _Resting(camera.change)

    def __enter__(self) -> Frames:
        self._reader = threading.Thread(target=self._read, name="camera", daemon=True)
        self._reader.start()
        if self._camera.trigger == "stdin":
            # Not joined: it may wait for a line for ever.
            threading.Thread(target=self._listen, name="trigger", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        with self._change:
            self._change.notify_all()
        # A driver may hold it for long; nothing that it gives then is inspected.
        self._reader.join(_PATIENCE)

    @property
    def waiting(self) -> int:
        """Frames that wait to be inspected, or are asked for."""
        return len(self._asked) + len(self._next)

    def take(self, timeout: float) -> Frame | None:
        """The newest frame that is to be inspected; None if there is none in time."""
        with self._change:
            self._change.wait_for(lambda: self._next or self.is_over, timeout)
            frame = self._next.popleft() if self._next else None
            self._change.notify_all()
            return frame

    @property
    def is_over(self) -> bool:
        """Whether no more frames come."""
        return self._stop.is_set() or (not self._next and self._is_over)

    def _listen(self) -> None:
        for line in sys.stdin if self._triggers is None else self._triggers:
            with self._change:
                self._asked.append(line.strip())
                self._change.notify_all()
            if self._stop.is_set():
                return
        with self._change:
            self._is_asked_out = True
            self._change.notify_all()

    def _read(self) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                frame = self._grab(number + 1)
                if frame is None:
                    if not self._camera.is_live or not self._open_again():
                        return
                    continue
                number += 1
                name = self._wanted(frame.image, number)
                if name is not None:
                    self._offer(replace(frame, name=name))
                with self._change:
                    if self._is_asked_out and not self._asked:
                        return
        except Exception as error:  # a fault of the program: it is raised in the calling thread
            self.failure = error
        finally:
            self._capture.release()
            with self._change:
                self._is_over = True
                self._change.notify_all()

    def _grab(self, number: int) -> Frame | None:
        """The next frame; None where there is none, also since a driver or a decoder fails."""
        try:
            worked, image = self._capture.read()
            return Frame(_rgb(image), number, time.time()) if worked else None
        except Exception as error:
            _log.error("a frame cannot be read", extra={"error": str(error)})
            if not self._camera.is_live:
                raise
            return None

    def _wanted(self, image: NDArray[np.uint8], number: int) -> str | None:
        """The name of a frame that is to be inspected, empty if it has none; None for others."""
        camera = self._camera
        if camera.trigger == "stdin":
            with self._change:
                if not camera.is_live:  # a file waits until someone asks
                    self._change.wait_for(
                        lambda: self._asked or self._is_asked_out or self._stop.is_set()
                    )
                return self._asked.pop(0) if self._asked else None
        if camera.trigger == "change":
            return "" if self._resting.is_new(image) else None
        if (number - 1) % camera.every_frames:
            return None
        now = time.monotonic()
        if camera.is_live and now - self._last < camera.every_seconds:
            return None
        if not camera.is_live and camera.every_seconds and not self._is_due(number):
            return None
        self._last = now
        return ""

    def _is_due(self, number: int) -> bool:
        """Whether a frame of a video is the first after its time, by the rate in the file."""
        rate = 0.0
        if isinstance(self._capture, cv2.VideoCapture):
            rate = self._capture.get(cv2.CAP_PROP_FPS)
        if not 0 < rate < 1000:
            rate = 25.0
        step = self._camera.every_seconds * rate
        return int((number - 1) / step) != int((number - 2) / step) or number == 1

    def _offer(self, frame: Frame) -> None:
        with self._change:
            if not self._camera.is_live:
                self._change.wait_for(lambda: not self._next or self._stop.is_set())
            elif self._camera.trigger != "none":  # what was asked for is not dropped
                self._change.wait_for(lambda: len(self._next) < _ASKED or self._stop.is_set())
            elif self._next:
                self._next.clear()
                self.dropped += 1
            self._next.append(frame)
            self._change.notify_all()

    def _open_again(self) -> bool:
        """Open a live source until it works; False at the end."""
        self._capture.release()
        pause = _SOONEST
        self.trouble = f"{self._camera.name} gives no picture"
        _log.error("the camera gives no picture", extra={"camera": self._camera.name})
        while not self._stop.wait(pause):
            try:
                self._capture = self._camera.open()
            except Exception:  # whatever a driver does
                pause = min(2 * pause, _LATEST)
                continue
            with self._change:  # these parts have gone by
                missed, self._asked = len(self._asked), []
            if missed:
                self.dropped += missed
                _log.error("verdicts were asked for without a picture", extra={"number": missed})
            self.trouble = ""
            _log.info("the camera is back", extra={"camera": self._camera.name})
            return True
        return False


class _Resting:
    """Whether a picture is another one than the last that was inspected, and lies still."""

    def __init__(self, change: float) -> None:
        self._change = change
        self._before: NDArray[np.float32] | None = None
        self._inspected: NDArray[np.float32] | None = None

    def is_new(self, image: NDArray[np.uint8]) -> bool:
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(gray, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, small
        if before is None or self._differ(small, before):
            return False  # it moves
        if self._inspected is not None and not self._differ(small, self._inspected):
            return False
        self._inspected = small
        return True

    def _differ(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
        return bool((np.abs(one - other) > self._change).mean() > _CHANGED)


def watch_camera(
    stored: StoredModel,
    camera: Camera,
    settings: Settings,
    stop: threading.Event,
    *,
    show: Callable[[Frame, Decision], object] | None = None,
    triggers: Iterator[str] | None = None,
) -> None:
    """Inspect the frames of a camera until `stop` is set, or a video is over.

    Parameters
    ----------
    stored : StoredModel
        The model.
    camera : Camera
        Where from.
    settings : Settings
        What is done with verdicts.
    stop : threading.Event
        Ends it.
    show : callable, optional
        Called with each frame and what was said of it, in the calling thread.
    triggers : iterator of str, optional
        See `Frames`.

    Raises
    ------
    PathError
        The source cannot be opened at first.
    OptionError
        Another process writes to the output, or it belongs to another source.
    """
    frames = Frames(camera, stop, triggers)
    with (
        opened(
            stored,
            f"camera {camera.name}",
            settings,
            waiting=lambda: frames.waiting,
            dropped=lambda: frames.dropped,
            trouble=lambda: frames.trouble,
        ) as line,
        frames,
    ):
        threading.Thread(target=_finish, args=(stop, line), name="end", daemon=True).start()
        while not frames.is_over:
            frame = frames.take(0.5)
            if frame is None:
                continue
            begun = time.time()
            subject = _subject(frame, begun)
            try:
                photo = Photograph.of_array(frame.image, line.inspector.framing, subject.path)
                decision = line.inspector.inspect(photo, subject.path, alone=True)
            except ImageError as error:
                line.keeper.fail(subject, str(error), time.time())
                continue
            except Exception as error:  # this frame has no verdict, others do
                _log.exception("a fault of the program", extra={"frame": subject.path})
                line.keeper.fail(subject, f"{type(error).__name__}: {error}", time.time())
                continue
            line.keeper.keep(subject, photo, decision, time.time())
            if show is not None:
                show(frame, decision)
    if frames.failure is not None:
        raise ImageError(f"{camera.name} cannot be read: {frames.failure}") from frames.failure


def _finish(stop: threading.Event, line: Line) -> None:
    stop.wait()
    line.keeper.finish()


def _subject(frame: Frame, begun: float) -> Subject:
    """Named by its time and number, and by what triggered it."""
    day, clock = time.strftime("%Y-%m-%d %H-%M-%S", time.gmtime(frame.taken)).split()
    thousandths = int(frame.taken % 1 * 1000)
    words = re.sub(r"[^\w.-]+", "_", frame.name)[:80].strip("._")
    name = f"{day}/{clock}-{thousandths:03d}-{frame.number:07d}{'-' if words else ''}{words}.png"
    digest = hashlib.sha256(frame.image.tobytes()).hexdigest()
    return Subject(name, frame.image.nbytes, int(frame.taken * 1e9), digest, frame.taken, begun)


def _rgb(image: NDArray[Any]) -> Any:
    """As OpenCV gives it, BGR or gray, to RGB."""
    code = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(image, code)  # of more than 8 bits it stays, for a model of such images

"""The seam between work and where it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Job(Protocol[T_contra, R_co]):
    """Work that can be pickled and done elsewhere."""

    def start(self) -> Callable[[Iterable[T_contra]], Iterable[R_co]]:
        """What does it: items -> their results, in order. Called once in each process.

        It is what loads a model, so that this is not done for each item.
        """


class Held(Protocol):
    """An object that lives in one of the processes."""

    def tell(self, name: str, args: Callable[[], tuple[Any, ...]]) -> Callable[[], Any]:
        """Call a method that changes the object; what comes back waits until that is done.

        Where the process is lost, the object that takes its place is told the same. `args` gives
        the arguments when they are needed, so that they need not be kept.
        """

    def ask(self, name: str, *args: Any) -> Callable[[], Any]:
        """Call a method that changes nothing; what comes back waits for its result."""


class Workers(Protocol):
    """Processes that work is handed out to. Use it as a context manager.

    Attributes
    ----------
    count : int
        How many there are.
    spreads : bool
        Whether they are processes of their own, and thus `Spreading`.
    """

    count: int
    spreads: bool

    def map(self, job: Job[T, R], items: Iterable[T], chunk: int = 16) -> Iterator[R]:
        """Results in the order of the items, which are drawn as they are needed.

        `chunk` is how many items are handed out together, where they are.
        """

    def each(self, job: Job[T, dict[str, Any]], items: Sequence[T]) -> Iterator[dict[str, Any]]:
        """Results as they come; items and results are plain values.

        An item may be worked on twice where a process is lost: its result comes once.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Spreading(Workers, Protocol):
    """Workers that are processes of their own, in which data can stay."""

    def hold(self, make: Callable[[], Any]) -> Sequence[Held]:
        """An object in each of the processes, made there by `make`, which is pickled."""

    def merged(self, name: str, helds: Sequence[Any], args: Sequence[tuple[Any, ...]]) -> Any:
        """What a method gives of all objects, merged in a tree by its own ``merge(other)``.

        `args` are those of each object.
        """

    def share(self, value: Any) -> Any:
        """Something large that several objects are asked with, as an argument for `Held.ask`."""


_beat: ContextVar[Callable[[], None] | None] = ContextVar("anomaly_ad_beat", default=None)


def beat() -> None:
    """Say that work goes on; a job does so within an item that may take long."""
    say_so = _beat.get()
    if say_so is not None:
        say_so()


@contextmanager
def beating(say_so: Callable[[], None]) -> Iterator[None]:
    """Let `beat` call a function."""
    token = _beat.set(say_so)
    try:
        yield
    finally:
        _beat.reset(token)


_current: ContextVar[Workers | None] = ContextVar("anomaly_ad_workers", default=None)


def current() -> Workers:
    """Those that `using` named for this context; the threads of this process otherwise."""
    from .local import Local

    return _current.get() or Local()


@contextmanager
def using(workers: Workers) -> Iterator[Workers]:
    """Open workers, and make them those that `current` gives."""
    with workers:
        token = _current.set(workers)
        try:
            yield workers
        finally:
            _current.reset(token)

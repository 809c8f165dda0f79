"""Work is done in this process, by the threads that it starts itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

from .base import Held, Job

T = TypeVar("T")
R = TypeVar("R")


class Local:
    """Work is done here, item by item."""

    count = 1
    spreads = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def map(self, job: Job[T, R], items: Iterable[T], chunk: int = 16) -> Iterator[R]:
        """Results in the order of the items."""
        yield from job.start()(items)

    def each(self, job: Job[T, dict[str, Any]], items: Sequence[T]) -> Iterator[dict[str, Any]]:
        """Likewise."""
        yield from job.start()(items)

    def hold(self, make: Callable[[], Any]) -> Sequence[Held]:
        """The object itself."""
        return [_Here(make())]

    def merged(self, name: str, helds: Sequence[Any], args: Sequence[tuple[Any, ...]]) -> Any:
        """What it gives."""
        ((held, some),) = zip(helds, args, strict=True)
        return held.ask(name, *some)()

    def share(self, value: Any) -> Any:
        """As it is."""
        return value


class _Here:
    def __init__(self, held: Any) -> None:
        self._held = held

    def tell(self, name: str, args: Callable[[], tuple[Any, ...]]) -> Callable[[], Any]:
        return self.ask(name, *args())

    def ask(self, name: str, *args: Any) -> Callable[[], Any]:
        found = getattr(self._held, name)(*args)
        return lambda: found

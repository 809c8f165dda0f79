"""Work is done in this process, by the threads that it starts itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

from .base import Job

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

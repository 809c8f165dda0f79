"""Threads around the model: decode before it, draw and write after it, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .cpus import cpu_count

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int | None = None
) -> Generator[R, None, None]:
    """Apply `function` to each item in threads; yield the results in the order of the items.

    At most ``2 * workers`` items are under way or waiting to be taken, so memory stays bounded
    however many items there are and however slowly the results are taken. An exception of
    `function` or of `items` is raised here, at its place in the order; items not yet begun are
    dropped then, as they are when the caller closes the generator.

    Parameters
    ----------
    function : callable
        Called as ``function(item)`` in a worker thread. OpenCV, OpenVINO and file access release
        the interpreter lock, so threads do run in parallel there.
    items : iterable
        Drawn from in the calling thread.
    workers : int, optional
        Number of threads; by default the number of processors.
    """
    workers = workers or cpu_count()
    under_way: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="anomaly_ad")
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

"""Progress bars of long work: on stderr, and only where a person looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(total: int, what: str) -> Iterator[Callable[[str], None]]:
    """A bar of `total` steps; call what it gives after each step, with a short note or ''."""
    with tqdm(total=total, desc=what, disable=None, dynamic_ncols=True) as shown:

        def step(note: str = "") -> None:
            shown.set_postfix_str(note, refresh=False)
            shown.update()

        yield step

"""Progress bars of long work: on stderr, and only where a person looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(total: int, what: str, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar of `total` steps; call what it gives after each step, with a short note or ''."""
    if not shown:
        yield _ignore
        return
    # None: disabled where stderr is no terminal.
    with tqdm(total=total, desc=what, disable=None, dynamic_ncols=True) as line:

        def step(note: str = "") -> None:
            line.set_postfix_str(note, refresh=False)
            line.update()

        yield step


def _ignore(note: str = "") -> None:
    pass


def say(text: str) -> None:
    """Print a line on stderr, above a bar that may be shown there."""
    tqdm.write(printable(text), file=sys.stderr)


def printable(text: object) -> str:
    """A text that can be printed: file names may hold bytes that are no UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")

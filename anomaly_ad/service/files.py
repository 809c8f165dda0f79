"""Files that a request names: below the given roots, and nothing else.

A name is resolved once. Then the file is opened folder by folder from the root downwards, and no
step follows a link: whoever swaps a folder or a file for a link in between is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ..errors import OptionError
from .refusal import Refusal

_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# Without waiting: the other end of a pipe may never come.
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class Roots:
    """The folders below which files can be named.

    Parameters
    ----------
    folders : sequence of Path
        Searched in this order.

    Raises
    ------
    OptionError
        One is no folder, or the system cannot open files relative to a folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        if folders and os.open not in os.supports_dir_fd:
            raise OptionError("--root needs a system that opens files relative to a folder.")
        for folder in folders:
            if not os.path.isdir(folder):
                raise OptionError(f"--root names a folder. Received: {str(folder)!r}.")
        self._folders = [Path(os.path.realpath(folder)) for folder in folders]

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of a file.

        Parameters
        ----------
        name : str
            Its path relative to a root, with "/" between folders.
        max_bytes : int
            A larger file is refused.

        Raises
        ------
        Refusal
            403 for a name that leads out, 404 for a file that is not there, 413 for one that is
            too large, 422 for something else than a file.
        """
        if not self._folders:
            raise Refusal(
                403,
                "This service was started without --root, so no files can be named. Upload the "
                "image in the multipart field 'image'.",
            )
        if "\0" in name or Path(name).is_absolute() or ".." in name.split("/"):
            raise _leads_out(name)
        for root in self._folders:
            descriptor = _open_below(root, name)
            if descriptor is not None:
                return _read(descriptor, name, max_bytes)
        raise Refusal(
            404,
            f"{name!r}: there is no such file below the roots, or it may not be read. Name it "
            "relative to a root.",
        )


def _leads_out(name: str) -> Refusal:
    return Refusal(
        403, f"{name!r} is not a path below the roots. Name files relative to a root, without '..'."
    )


def _open_below(root: Path, name: str) -> int | None:
    """A descriptor of the file; None if it is not there."""
    try:
        real = Path(os.path.realpath(root / name))
    except (OSError, ValueError):  # too long, or no text that the file system knows
        return None
    if not real.is_relative_to(root) or real == root:
        raise _leads_out(name)
    *folders, last = real.relative_to(root).parts
    try:
        parent = os.open(root, os.O_RDONLY | _FOLDER)
        try:
            for folder in folders:
                child = os.open(folder, os.O_RDONLY | _FOLDER, dir_fd=parent)
                os.close(parent)
                parent = child
            # Looked at before it is opened: opening a device can set it to work.
            _check_is_file(os.stat(last, dir_fd=parent, follow_symlinks=False), name)
            return os.open(last, os.O_RDONLY | _FILE, dir_fd=parent)
        finally:
            os.close(parent)
    except (OSError, ValueError):
        return None


def _check_is_file(state: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise Refusal(422, f"{name!r} is not a file. Name an image file.")


def _read(descriptor: int, name: str, max_bytes: int) -> bytes:
    with open(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        _check_is_file(state, name)
        if state.st_size > max_bytes:
            raise Refusal(
                413,
                f"{name!r} has {state.st_size:,} bytes; at most {max_bytes:,} are read. Shrink "
                "it, or start the service with a larger --max-bytes.",
            )
        return file.read(max_bytes)

"""Files that a request names: below the given roots, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import OptionError
from .schema import Refusal


class Roots:
    """The folders below which files can be named, in the order of the search."""

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not os.path.isdir(folder):
                raise OptionError(f"--root names a folder. Received: {str(folder)!r}.")
        self._folders = [Path(os.path.realpath(folder)) for folder in folders]

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of a file, named by its path relative to a root.

        Raises
        ------
        Refusal
            403 for a name that leads out, also by a link, 404 for a file that is not there, 413
            for one that is too large, 422 for something else than a file.
        """
        if not self._folders:
            raise Refusal(
                403,
                "This service was started without --root, so no files can be named. Upload the "
                "image in the multipart field 'image'.",
            )
        for root in self._folders:
            try:
                file = _inside(root, name)
                if not os.path.lexists(file):
                    continue
                # Looked at before it is opened: opening a pipe or a device can stop or start it.
                if not file.is_file():
                    raise Refusal(422, f"{name!r} is not a file. Name an image file.")
                if (size := file.stat().st_size) > max_bytes:
                    raise Refusal(
                        413,
                        f"{name!r} has {size:,} bytes; at most {max_bytes:,} are read. Shrink it, "
                        "or start the service with a larger --max-bytes.",
                    )
                return file.read_bytes()
            except OSError:  # also a name that is too long
                continue
        raise Refusal(
            404,
            f"{name!r}: there is no such file below the roots, or it may not be read. Name it "
            "relative to a root.",
        )


def _inside(root: Path, name: str) -> Path:
    """The real path of a file, after all links."""
    if "\0" not in name and not Path(name).is_absolute() and ".." not in name.split("/"):
        file = Path(os.path.realpath(root / name))
        if file.is_relative_to(root) and file != root:
            return file
    raise Refusal(
        403, f"{name!r} is not a path below the roots. Name files relative to a root, without '..'."
    )

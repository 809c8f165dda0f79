"""An HTML file that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from ..errors import OptionError
from ..images import PathLike, check_path
from ..inspection.pages import script
from ..inspection.records import cannot_write
from ..web import asset, content_policy

_SUFFIXES = (".html", ".htm")


class Document:
    """Takes its place before the work begins, and is written after it, at once.

    Use it as a context manager.

    Parameters
    ----------
    target : path
        The HTML file; replaced if it is there.
    template : str
        File in this folder. It gets `style`, `code` and `policy`, and what `write` is given.
    styles, scripts : sequence of str
        Files in this folder, behind the style and the script that all pages have.

    Raises
    ------
    OptionError
        The target is not an HTML file.
    OutputError
        It cannot be written.
    """

    def __init__(
        self, target: PathLike, template: str, styles: Iterable[str], scripts: Iterable[str]
    ) -> None:
        import jinja2  # only pages need it

        self.target = check_path(target, "The report")
        if self.target.suffix.lower() not in _SUFFIXES or os.path.isdir(self.target):
            raise OptionError(f"A report is a file that ends in .html. Received: {target!s}")
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        self._template = environment.from_string(_own(template))
        self._style = asset("look.css") + "".join(map(_own, styles))
        self._code = script() + "".join(map(_own, scripts))
        self._fresh = self.target.with_name(f".{secrets.token_hex(8)}.tmp")

    def __enter__(self) -> Self:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._fresh.open("w", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self.target.parent, error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._fresh.unlink(missing_ok=True)

    def write(self, **told: Any) -> None:
        """Fill the template and put the whole page in its place at once."""
        chunks = self._template.generate(
            **told,
            style=self._style,
            code=self._code,
            policy=content_policy(self._style, self._code),
        )
        try:
            self._file.writelines(chunks)
            self._file.close()
            os.replace(self._fresh, self.target)
        except OSError as error:
            raise cannot_write(self.target.parent, error) from error


def refuse_in_input(target: PathLike, images: Iterable[Path], root: Path | None = None) -> None:
    """Raise OptionError if a page would lie in a folder that it is about."""
    home = Path(os.path.realpath(check_path(target, "The report").parent))
    folders = {image.parent for image in images} | ({root} if root else set())
    if not {Path(os.path.realpath(f)) for f in folders}.isdisjoint((home, *home.parents)):
        raise OptionError(
            f"The report {target} would lie in the folder that it is about. Choose another "
            "place; nothing is ever written into the input."
        )


def script_data(values: Any) -> str:
    """JSON that may stand in a script element: no '<' that could end it."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")

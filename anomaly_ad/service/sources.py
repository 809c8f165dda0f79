"""The images of a request: in its form, or files below the roots that it names."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from ..errors import OptionError
from .schema import Refusal
from .settings import Settings

_MAX_JSON = 65_536  # bytes
_MAX_NAME = 255  # characters of a file's name that are kept
_OTHER_PARTS = 16  # fields of a form, the images apart
_TAIL = 1_024  # bytes in which a form's end is looked for

_HOW = (
    "Send images in the multipart field 'image', or JSON such as "
    '{"data": {"image": "volume/image.png"}}; options in the query: ?thresh=0.8&heatmap=true.'
)

Source = tuple[str, Callable[[], bytes]]  # the file's name, and what reads it in a thread


class _Data(BaseModel, extra="forbid", strict=True):
    image: str = Field(min_length=1)


class _Named(BaseModel, extra="forbid", strict=True):
    data: _Data


@asynccontextmanager
async def read_images(
    request: Request, roots: Roots, settings: Settings
) -> AsyncIterator[list[Source]]:
    """The images of a request, in order, at least one.

    Refusal 400 for a body that is damaged or holds none, 413 for JSON that is too large, 415 for
    another type.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        name = await _read_name(request)
        yield [(name, functools.partial(roots.read, name, settings.max_bytes))]
        return
    if kind != "multipart/form-data":
        raise Refusal(415, f"{_HOW} Received: {content_type[:100] or 'no content type'}.")
    tail = b""

    async def receive() -> Message:
        nonlocal tail
        message = await request.receive()
        tail = (tail + message.get("body", b""))[-_TAIL:]
        return message

    reader = Request(request.scope, receive)
    try:
        async with reader.form(max_files=settings.queue, max_fields=_OTHER_PARTS) as form:
            boundary = parse_options_header(content_type)[1][b"boundary"]
            if b"--%b--" % boundary not in tail:  # the parser would leave out the last part
                raise Refusal(400, f"The form is cut off. {_HOW}")
            yield _uploads(form.multi_items())
    except HTTPException as error:
        why = error.detail.rstrip(".")
        raise Refusal(400, f"The form cannot be read: {why}. {_HOW}") from error


def _uploads(items: Iterable[tuple[str, UploadFile | str]]) -> list[Source]:
    images: list[Source] = []
    for field, value in items:
        if field != "image":  # an option that is overlooked would give another verdict
            raise Refusal(400, f"{field[:_MAX_NAME]!r} is not a field of this form. {_HOW}")
        if isinstance(value, str):
            raise Refusal(400, f"A part of the form has no filename, so it is text. {_HOW}")
        name = (value.filename or "").encode(errors="replace").decode()
        images.append((name[:_MAX_NAME], value.file.read))
    if not images:
        raise Refusal(400, f"The form holds no image. {_HOW}")
    return images


async def _read_name(request: Request) -> str:
    """The name in the JSON form ``{"data": {"image": name}}``."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_JSON:
            raise Refusal(413, f"The JSON is larger than {_MAX_JSON:,} bytes. {_HOW}")
    try:
        named = _Named.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Refusal(400, f"The JSON cannot be read: {where}: {first['msg']}. {_HOW}") from error
    return named.data.image


class Roots:
    """The folders below which files can be named, in the order of the search."""

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not os.path.isdir(folder):
                raise OptionError(f"--root names a folder. Received: {str(folder)!r}.")
        self._folders = [Path(os.path.realpath(folder)) for folder in folders]

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of a file, named by its path relative to a root.

        Refusal 403 for a name that leads out, also by a link, 404 for a file that is not there,
        413 for one that is too large, 422 for something else than a file.
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
            f"{name!r}: there is no such file below the roots, or it cannot be read. Give its "
            "path relative to a root.",
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

"""The body of a request -> the images that it holds or names."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from pydantic import BaseModel, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from .files import Roots
from .schema import Refusal
from .settings import Settings

FIELD = "image"
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
        if field != FIELD:  # an option that is overlooked would give another verdict
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

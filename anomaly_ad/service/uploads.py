"""The body of a request -> the images in it, as they come in and never more than is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .admission import Stay
from .refusal import Refusal

FIELD = "image"
OPTIONS = ("model", "thresh", "heatmap")  # of a request, in its query
MAX_JSON = 65_536  # bytes
_MAX_NAME = 255  # characters of a file's name that are kept
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_EXTENDED_NAME = re.compile(rb"; *filename\*=utf-8'[^';]*'([^;'\" ]+)", re.IGNORECASE)
_OTHER_PARTS = 16  # fields of a form beside the images

_HOW = (
    "Send images in the multipart field 'image', or JSON such as "
    '{"data": {"image": "volume/image.png"}}.'
)


@dataclass
class Upload:
    """An image file that was uploaded: its name, as the client says it, and its bytes."""

    name: str
    data: bytearray = field(default_factory=bytearray)


async def read_form(
    chunks: AsyncIterator[bytes], content_type: bytes, stay: Stay, max_bytes: int
) -> list[Upload]:
    """The images of a multipart form, in order.

    Raises
    ------
    Refusal
        400 for a form that is damaged or holds no image, 413 for one that is too large, 503 where
        the queue has no room for it.
    """
    form = _Form(content_type, stay)
    async for chunk in _limited(chunks, max_bytes):
        stay.take_bytes(len(chunk))
        form.write(chunk)
    uploads = form.finish()
    stay.take_places(len(uploads))
    return uploads


async def read_name(chunks: AsyncIterator[bytes]) -> str:
    """The name in the JSON form ``{"data": {"image": name}}``.

    Raises
    ------
    Refusal
        400 for anything else, 413 for more than `MAX_JSON` bytes.
    """
    body = b"".join([chunk async for chunk in _limited(chunks, MAX_JSON)])
    try:
        content = json.loads(body)
        data = content["data"]
        name = data[FIELD]
        names = [*content, *data]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Refusal(400, f"The JSON has another form than expected. {_HOW}") from error
    for option in names:
        _check_place(option)
    if not isinstance(name, str) or not name:
        raise Refusal(400, f"data.image is the path of an image file below a root. {_HOW}")
    return name


def _check_place(name: str) -> None:
    """Where options would be overlooked, the verdict would be another one than was asked for."""
    if name in (*OPTIONS, "threshold"):
        raise Refusal(
            400,
            f"{name!r} stands where options are not read. Put it into the query: "
            "/predict?thresh=0.8&model=NAME&heatmap=true.",
        )


def wrong_type(content_type: bytes) -> Refusal:
    """Neither a form nor JSON."""
    received = content_type.decode("latin-1")[:100] or "no content type"
    return Refusal(415, f"{_HOW} Received: {received}.")


def too_large(max_bytes: int) -> Refusal:
    """More than is taken."""
    return Refusal(
        413,
        f"The request is larger than {max_bytes:,} bytes. Send fewer or smaller images, or start "
        "the service with a larger --max-bytes.",
    )


def _file_name(disposition: bytes, options: dict[bytes, bytes]) -> str:
    """What the client calls the file.

    RFC 7578 forbids the form ``filename*=utf-8''...`` here, but widespread clients write it, and
    the parser of the form leaves it out.
    """
    name = options.get(b"filename")
    if name is None:
        found = _EXTENDED_NAME.search(_QUOTED.sub(b'""', disposition))
        name = unquote_to_bytes(found[1]) if found else b""
    return name.decode("utf-8", "replace")


async def _limited(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > max_bytes:
            raise too_large(max_bytes)
        yield chunk


class _Form:
    """Takes a multipart body apart while it arrives; only what is asked for is kept."""

    def __init__(self, content_type: bytes, stay: Stay) -> None:
        self._stay = stay
        self.uploads: list[Upload] = []
        self._others: list[str] = []
        self._current: Upload | None = None
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._complete = False
        _, options = parse_options_header(content_type)
        calls: dict[str, Any] = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._keep,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], calls)  # type: ignore[arg-type]
        except (KeyError, FormParserError) as error:
            raise Refusal(400, f"The form's content type names no boundary. {_HOW}") from error

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refusal(400, f"The form is damaged. {_HOW}") from error

    def finish(self) -> list[Upload]:
        if not self._complete:
            raise Refusal(400, f"The form is cut off. {_HOW}")
        if not self.uploads:
            received = ", ".join(sorted(set(self._others))) or "no field"
            raise Refusal(400, f"The form holds no image. {_HOW} Received: {received}.")
        return self.uploads

    def _begin(self) -> None:
        self._disposition = b""
        self._current = None

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        name.clear()
        value.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        called = options.get(b"name", b"").decode("utf-8", "replace")[:_MAX_NAME]
        if called != FIELD:
            _check_place(called)
            self._others.append(called)
            if len(self._others) > _OTHER_PARTS:
                raise Refusal(400, f"The form has too many other fields. {_HOW}")
            return
        if len(self.uploads) >= self._stay.places:
            raise Refusal(
                413,
                f"A request holds at most {self._stay.places} images. Send them in several, or "
                "start the service with a larger --queue.",
            )
        self._current = Upload(_file_name(self._disposition, options)[:_MAX_NAME])
        self.uploads.append(self._current)

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if self._current is not None:
            self._current.data += data[start:end]

    def _end(self) -> None:
        self._complete = True

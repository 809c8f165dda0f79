"""The page of `anomaly-ad roi`: a region of interest drawn on an image, saved as JSON."""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

import cv2

from ..errors import AnomalyADError, OptionError, OutputError
from ..images import PathLike, Photograph, check_path, survey
from ..images.framing import Framing
from ..images.roi import read_drawn, resolve_region
from ..images.values import EIGHT_BITS
from ..web import asset, content_policy

_MOST_BYTES = 2_000_000  # of what the page sends
_SIDE = 2000  # longer side of the picture that is drawn on


class DrawnRegion:
    """The server of one drawing. Close it, or use it as a context manager.

    Parameters
    ----------
    image : path
        A training image.
    output : path
        The JSON file. One that is there is shown, and replaced when the drawing is saved.
    port : int
        To listen on, at 127.0.0.1; 0 for a free one.

    Raises
    ------
    ImageError, PathError
        The image cannot be read.
    OptionError
        The file that is there is no region, or one for images of another size.
    OutputError
        The address cannot be listened on.
    """

    def __init__(self, image: PathLike, output: PathLike, port: int = 0) -> None:
        self.output = check_path(output, "output")
        path = check_path(image, "The image")
        kind = survey([path])
        values = kind.value_range or EIGHT_BITS
        framing = Framing.new(256, 256, 3, value_range=values, deep=bool(kind.depth))
        photo = Photograph.read(path, framing)
        self.size = photo.size
        self.saved = threading.Event()
        drawn: dict[str, Any] = {"inspect": [], "ignore": []}
        if self.output.exists():
            found = read_drawn("roi", self.output)
            resolve_region(found, None, [self.size])
            drawn = {name: found.get(name) or [] for name in drawn}
        self._page = _page(photo, path.name, drawn)
        self._secret = secrets.token_urlsafe(16)
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self._answer))
        except (OSError, OverflowError) as error:
            raise OutputError(
                f"Port {port} of 127.0.0.1 cannot be listened on ({error}). Choose another: --port."
            ) from error
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{self._secret}/"

    def __enter__(self) -> DrawnRegion:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, data: bytes | None) -> tuple[HTTPStatus, str, bytes, str]:
        """Status, type, content and policy for a path; `data` is what was sent, None for GET."""
        if path != f"/{self._secret}/":
            return HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here.", ""
        if data is None:
            html, policy = self._page
            return HTTPStatus.OK, "text/html", html, policy
        try:
            self._save(data)
        except AnomalyADError as error:
            return HTTPStatus.UNPROCESSABLE_ENTITY, "text/plain", str(error).encode(), ""
        return HTTPStatus.OK, "text/plain", f"Saved in {self.output}.".encode(), ""

    def _save(self, data: bytes) -> None:
        try:
            sent = json.loads(data)
            values = {"image_size": [*self.size]}
            values |= {name: sent.get(name) or [] for name in ("inspect", "ignore")}
        except (ValueError, AttributeError) as error:
            raise OptionError(f"The region cannot be read: {error}.") from error
        resolve_region(values, None, [self.size])
        unfinished = self.output.with_name(f".{self.output.name}.{self._secret[:8]}")
        try:
            unfinished.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
            os.replace(unfinished, self.output)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise OutputError(f"The region cannot be written to {self.output}: {error}.") from error
        self.saved.set()


def _page(photo: Photograph, name: str, drawn: dict[str, Any]) -> tuple[bytes, str]:
    """The page as HTML, and the policy that lets nothing else in."""
    height, width = photo.size
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(photo.picture(), size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    style, code = asset("look.css") + _asset("roi.css"), _asset("roi.js")
    facts = {"width": width, "height": height, "name": name, **drawn}
    text = _asset("roi.html")
    for mark, value in (
        ("{{ style }}", style),
        ("{{ script }}", code),
        ("{{ facts }}", json.dumps(facts).replace("<", "\\u003c")),
        ("{{ image }}", base64.b64encode(jpeg.tobytes()).decode()),
    ):
        text = text.replace(mark, value)
    return text.encode(), content_policy(style, code, "connect-src 'self'; ")


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _handler(
    answer: Callable[[str, bytes | None], tuple[HTTPStatus, str, bytes, str]],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not length.isdecimal() or int(length) > _MOST_BYTES:
                self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                return
            self._reply(self.rfile.read(int(length)))

        def _reply(self, data: bytes | None) -> None:
            status, kind, content, policy = answer(self.path, data)
            self.send_response(status)
            self.send_header("content-type", f"{kind}; charset=utf-8")
            self.send_header("content-length", str(len(content)))
            self.send_header("cache-control", "no-store")
            if policy:
                self.send_header("content-security-policy", policy)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: the address is all that is said."""

    return Handler

"""The pages: one file each with everything in it, and a policy that lets nothing else in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
from starlette.responses import Response

from ..inspection.pages import script
from ..web import asset, content_policy


def inspection_page() -> Response:
    """The page for inspecting by hand."""
    style = asset("look.css") + _asset("inspect.css")
    return _page(_asset("inspect.html"), style, script() + _asset("inspect.js"))


def docs_page(schema: Mapping[str, Any]) -> Response:
    """What the service takes and answers, from its OpenAPI schema."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(_asset("docs.html")).render(schema)
    return _page(html, asset("look.css") + _asset("docs.css"))


def _page(html: str, style: str, code: str = "") -> Response:
    """A page, with the only style and script that the browser may apply."""
    text = html.replace("{{ style }}", style).replace("{{ script }}", code)
    more = "media-src blob: mediastream:; connect-src 'self'; frame-ancestors 'none'; "
    headers = {
        "content-security-policy": content_policy(style, code, more),
        "permissions-policy": "camera=(self)",
    }
    return Response(text.encode(), headers=headers, media_type="text/html")


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")

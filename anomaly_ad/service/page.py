"""The pages: one file each with everything in it, and a policy that lets nothing else in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
from starlette.responses import Response

from ..web import asset, content_policy


@dataclass(frozen=True)
class Page:
    """A page and the only style and script that the browser may apply.

    Parameters
    ----------
    html : str
        With ``{{ style }}`` and, if there is a script, ``{{ script }}``, where these go.
    style, script : str
        Their text.
    """

    html: str
    style: str
    script: str = ""

    def response(self) -> Response:
        """The page as it is sent."""
        text = self.html.replace("{{ style }}", self.style).replace("{{ script }}", self.script)
        policy = content_policy(
            self.style,
            self.script,
            "media-src blob: mediastream:; connect-src 'self'; frame-ancestors 'none'; ",
        )
        headers = {"content-security-policy": policy, "permissions-policy": "camera=(self)"}
        return Response(text.encode(), headers=headers, media_type="text/html")


def load_page() -> Page:
    """The page for inspecting by hand."""
    style = asset("look.css") + _asset("inspect.css")
    return Page(_asset("inspect.html"), style, asset("limit.js") + _asset("inspect.js"))


def render_docs(schema: Mapping[str, Any]) -> Page:
    """A page of what the service takes and answers, from its OpenAPI schema."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(_asset("docs.html")).render(schema)
    return Page(html, asset("look.css") + _asset("docs.css"))


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")

"""The OpenAPI description as a page. FastAPI's own would load its scripts from the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from ..web import asset
from .page import Page

_STYLE = """
.page-head { padding-top: 1.75rem; padding-bottom: 1.25rem; }
a { color: var(--accent); }
h2 code { font-size: 1.05em; }
pre { overflow-x: auto; background: var(--soft); border-radius: .5rem; padding: .75rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; }
tr { border-bottom: 1px solid var(--line); }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; }
@media (max-width: 32rem) {
  tr { display: flex; flex-wrap: wrap; }
  td:last-child { flex-basis: 100%; padding-top: 0; }
}
"""


def render_docs(schema: Mapping[str, Any]) -> Page:
    """A page of what the service takes and answers, from its OpenAPI schema."""
    info = schema["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{escape(info["title"])} API</title><link rel="icon" href="data:,">',
        "<style>{{ style }}</style></head><body>",
        f'<header class="page-head"><h1>{escape(info["title"])} {escape(info["version"])}</h1>',
        f"<p>{escape(info['description'])} As a file for programs: "
        '<a href="/openapi.json">openapi.json</a>.</p></header><main>',
    ]
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            parts += _operation(method.upper(), path, about)
    parts.append("</main></body></html>")
    return Page("".join(parts), asset("look.css") + _STYLE)


def _operation(method: str, path: str, about: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section class="panel"><h2><code>{method} {escape(path)}</code></h2>'
    yield f"<p>{escape(about.get('summary', ''))}.</p>"
    parameters = about.get("parameters", [])
    if parameters:
        rows = [
            (entry["name"], _default(entry["schema"]), entry.get("description", ""))
            for entry in parameters
        ]
        yield from _table(("in the query", "default", ""), rows)
    for kind, body in about.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body, {escape(kind)}</h3>"
        if "example" in body:
            yield f"<pre>{escape(json.dumps(body['example']))}</pre>"
        else:
            yield from _fields(body["schema"])
    for status, found in about.get("responses", {}).items():
        schema = found.get("content", {}).get("application/json", {}).get("schema", {})
        description = found["description"].rstrip(".")
        yield f"<h3>{escape(str(status))}</h3><p>{escape(description)}.</p>"
        for variant in schema.get("oneOf", [schema]):
            yield from _fields(variant)
    yield "</section>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (name, _kind(field), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    ]
    if rows and rows[0][0] != "error":
        yield from _table(("field", "type", ""), rows)


def _kind(field: Mapping[str, Any]) -> str:
    kind = field.get("type", "")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    return f"{kind} of {_kind(field['items']) or 'the above'}" if "items" in field else kind


def _default(schema: Mapping[str, Any]) -> str:
    return "" if schema.get("default") is None else json.dumps(schema["default"])


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> Iterator[str]:
    yield "<table><thead><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head)
    yield "</tr></thead><tbody>"
    for name, *cells in rows:
        yield f"<tr><td><code>{escape(name)}</code></td>"
        yield "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table>"

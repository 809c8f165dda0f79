"""Pages for people: what the report and the service's page have in common.

A page is one file with everything in it, so that it opens from disk and without a network.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files


def asset(name: str) -> str:
    """The text of a file that lies next to this module, such as a style sheet."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def content_policy(style: str, script: str, more: str = "") -> str:
    """The Content-Security-Policy of a page with one style, one script and nothing from elsewhere.

    Parameters
    ----------
    style, script : str
        The text between the tags, to the character.
    more : str
        Further directives, each with a semicolon behind it.
    """
    return (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        f"img-src data: blob:; {more}base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

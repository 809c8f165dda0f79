"""Pages for people: what the report and the service's page have in common.

A page is one file with everything in it, so that it opens from disk and without a network.
"""

from __future__ import annotations

from importlib.resources import files


def asset(name: str) -> str:
    """The text of a file that lies beside this module, such as a style sheet."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")

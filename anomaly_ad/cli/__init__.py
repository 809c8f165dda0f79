"""The command line: arguments in, results printed; one file per group of commands.

`base` has what all commands share. The order of the imports is that of the help.
"""

# ruff: noqa: I001
from .base import app, main
from . import learn, inspect, quality, serve, line, deploy, other

__all__ = ["app", "deploy", "inspect", "learn", "line", "main", "other", "quality", "serve"]

"""On the line: folders that are watched, cameras, and where their verdicts go.

`journal` is the record, `arrivals` knows which files have come, `keeper` writes pictures and rows,
`transfers` moves files, `receivers` sends verdicts out; `watching` and `camera` put them together.
"""

from .watching import watch

__all__ = ["watch"]

"""What several rooms use and none owns: arrays in a temporary file, threads, words for a terminal.

It knows nothing of images or models.
"""

from .progress import bar, duration, printable, say
from .spool import Spool
from .threads import cpu_count, ordered_map

__all__ = [
    "Spool",
    "bar",
    "cpu_count",
    "duration",
    "ordered_map",
    "printable",
    "say",
]

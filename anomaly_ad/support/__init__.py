"""What several rooms use and none owns: arrays in a temporary file, threads, words for a terminal.

It knows nothing of images or models.
"""

from .cpus import cpu_count
from .progress import bar, duration, printable, say
from .spool import Spool
from .threads import ordered_map

__all__ = [
    "Spool",
    "bar",
    "cpu_count",
    "duration",
    "ordered_map",
    "printable",
    "say",
]

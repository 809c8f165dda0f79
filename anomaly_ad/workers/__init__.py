"""Where work is done: in the threads of this process, or on the machines of a Ray cluster.

Who hands out work knows neither of them: it asks `current()`.
"""

from .base import Held, Job, Spreading, Workers, beat, current, using
from .engines import ENGINES, workers_of
from .local import Local

__all__ = [
    "ENGINES",
    "Held",
    "Job",
    "Local",
    "Spreading",
    "Workers",
    "beat",
    "current",
    "using",
    "workers_of",
]

"""Stage 6, inspection: from what is to be inspected to verdicts, pictures and records.

`Inspector` runs a stored model; `Prediction` is what it says of an image; `Output` is where
pictures and records go.
"""

from .inspector import Inspected, Inspector, Observer, count_verdicts, summary
from .output import Output
from .placing import check_place, place
from .prediction import Prediction
from .regions import Region
from .runs import look, predict, stream

__all__ = [
    "Inspected",
    "Inspector",
    "Observer",
    "Output",
    "Prediction",
    "Region",
    "check_place",
    "count_verdicts",
    "look",
    "place",
    "predict",
    "stream",
    "summary",
]

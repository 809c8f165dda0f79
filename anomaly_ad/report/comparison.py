"""One HTML page that shows how methods compare."""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2

from ..choosing import Comparison, compare
from ..choosing.comparing import HEAD
from ..errors import AnomalyADError
from ..images import Framing, PathLike
from ..images.labelled import GOOD
from ..images.sources import Source
from ..support import printable
from .document import Document, refuse_in_input

_SIDE = 240  # pixels of a picture
_MOST_SHOWN = 60
_LEFT, _RIGHT = 140.0, 620.0  # of the chart
_ROW = 26.0


def compared(
    path: PathLike | Iterable[PathLike], target: PathLike | None = None, **options: Any
) -> Comparison:
    """Compare methods, with a page about it where `target` names an HTML file.

    Other parameters, result and errors are those of `choosing.compare`.
    """
    if target is None:
        return compare(path, **options)
    root = Path(path) if isinstance(path, (str, os.PathLike)) and os.path.isdir(path) else None
    refuse_in_input(target, [], root)
    with Document(target, "comparison.html", ["report.css", "comparison.css"], []) as page:
        seen: list[Any] = []
        found = compare(path, seen=lambda *what: seen.extend(what), **options)
        page.write(**_told(found, *seen))
    return found


def _told(found: Comparison, tests: list[tuple[Source, str]], framing: Framing) -> dict[str, Any]:
    counts = Counter(kind for _, kind in found.images)
    n_good = counts.pop(GOOD, 0)
    missed = [
        place
        for place, (_, kind) in enumerate(found.images)
        if kind != GOOD and not all(each.above[place] for each in found.methods)
    ]
    remarks = [*found.notes, *found.advice]
    remarks += found.left_out_lines
    return {
        "found": found,
        "name": printable(Path(found.source).name or found.source),
        "created": time.strftime("%Y-%m-%d %H:%M %z"),
        "saved": printable(found.saved),
        "recommendation": printable(found.recommendation),
        "head": HEAD,
        "n_good": n_good,
        "n_defective": counts.total(),
        "remarks": [*map(printable, remarks)],
        "kinds": [
            (printable(kind), count, [each.kinds.get(kind, 0) for each in found.methods])
            for kind, count in sorted(counts.items())
        ],
        "chart": _chart(found),
        "shown": [*_pictures(found, tests, missed[:_MOST_SHOWN], framing)],
        "n_more": max(len(missed) - _MOST_SHOWN, 0),
    }


def _chart(found: Comparison) -> dict[str, Any]:
    """Where everything lies, in units of the drawing."""
    gaps = [each.behind for each in found.methods]
    low, high = min(0.0, *(gap.low for gap in gaps)), max(0.01, *(gap.high for gap in gaps))

    def x(value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low), 1)

    lines = [
        {
            "name": each.name,
            "y": _ROW * (number + 0.5),
            "value": x(each.behind.value),
            "low": x(each.behind.low),
            "high": x(each.behind.high),
            "is_equal": each.is_equal,
        }
        for number, each in enumerate(found.methods)
    ]
    ticks = [{"x": x(value), "text": f"{value:.3f}"} for value in (0.0, high)]
    return {
        "lines": lines,
        "ticks": ticks,
        "zero": x(0.0),
        "height": _ROW * len(found.methods) + 24,
    }


def _pictures(
    found: Comparison, tests: list[tuple[Source, str]], places: list[int], framing: Framing
) -> Iterator[dict[str, str]]:
    for place in places:
        source, kind = tests[place]
        try:
            picture = source.read(framing).picture()
        except AnomalyADError:
            continue
        scale = min(_SIDE / max(picture.shape[:2]), 1)
        size = max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1)
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()
        yield {
            "picture": base64.b64encode(data).decode(),
            "kind": printable(kind),
            "name": printable(Path(source.name).name),
            "found": ", ".join(each.name for each in found.methods if each.above[place]),
        }

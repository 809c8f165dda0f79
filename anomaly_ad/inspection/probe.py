"""How fast and how large a model is on this machine, measured in a process of its own.

    python -m anomaly_ad.inspection.probe MODEL IMAGE...

prints one JSON object. In a process that has trained or writes a report other things lie in memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_IMAGES = 10
_ROUNDS = 3
_PATIENCE = 60  # seconds


@dataclass(frozen=True)
class Speed:
    """Figures of a model on this machine.

    Parameters
    ----------
    start_s : float
        Seconds from an empty process, its imports included, to the first verdict.
    image_ms : float
        Milliseconds from a file to its verdict, one after the other; the median.
    peak_mb : float or None
        The most memory that the process held; None where the system does not tell.
    """

    start_s: float
    image_ms: float
    peak_mb: float | None


def measure(model: Path, images: Sequence[Path]) -> Speed | None:
    """Measure a model in a new process; None where that does not succeed.

    Parameters
    ----------
    model : Path
        Its directory.
    images : sequence of Path
        Readable images; up to ten are taken, evenly.
    """
    if not sys.executable or not images:  # an embedded interpreter has none
        return None
    some = images[:: -(-len(images) // _IMAGES)]
    names = [str(Path(image).absolute()) for image in some]
    # -P: nothing is imported from the current folder, which may be anybody's. This package is the
    # one that runs here, wherever that was imported from.
    command = [sys.executable, "-P", "-m", __name__, str(model.absolute()), *names]
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    started = time.time()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=True, env=own
        )
        found = json.loads(done.stdout)
        return Speed(found["first"] - started, found["image_ms"], found["peak_mb"])
    except (OSError, subprocess.SubprocessError, ValueError, LookupError):
        return None


def _peak() -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found.group(1)) * 1024 / 1e6 if found else None


def main(model: str, images: Sequence[str]) -> None:
    """Inspect the images one by one and print what that took."""
    import numpy as np

    from ..images.sources import find_sources
    from ..model import load
    from .inspector import Inspector

    inspector = Inspector(load(model), keep_maps=False)
    seconds, first = [], 0.0
    for image in [*images] * _ROUNDS:
        start = time.perf_counter()
        for _ in inspector.run(find_sources(image)):
            pass
        seconds.append(time.perf_counter() - start)
        first = first or time.time()
    milliseconds = 1000 * float(np.median(seconds[1:] or seconds))
    print(json.dumps({"first": first, "image_ms": milliseconds, "peak_mb": _peak()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Whether a prediction costs the same however long the record in its output folder is.

    python benchmarks/record.py Models/model image.jpg

Predicts one image into an empty folder and into one whose predictions.jsonl holds a million lines,
in turn, and prints the medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.inspection.records import JSONL

LINES, PAIRS = 1_000_000, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    arguments = parser.parse_args()
    ad = AD(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        empty, long = Path(folder, "empty"), Path(folder, "long")
        ad.predict(arguments.image, long)
        line = (long / JSONL).read_text(encoding="utf-8")
        old = json.dumps({**json.loads(line), "run": "0" * 16}) + "\n"
        (long / JSONL).write_text(old * LINES, encoding="utf-8")
        times: dict[Path, list[float]] = {empty: [], long: []}
        for pair in range(PAIRS + 1):
            for place, taken in times.items():
                start = time.perf_counter()
                ad.predict(arguments.image, place)
                if pair:  # the first warms up
                    taken.append(time.perf_counter() - start)
        size = (long / JSONL).stat().st_size / 1e6
    new, full = (1e3 * statistics.median(taken) for taken in times.values())
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    print(
        f"into an empty folder {new:.1f} ms, "
        f"compared with {LINES:,} lines ({size:.0f} MB) {full:.1f} ms"
    )
    print(f"ratio {statistics.median(ratios):.3f} (median of {PAIRS} pairs)")


if __name__ == "__main__":
    main()

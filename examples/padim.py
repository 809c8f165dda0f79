"""Train PaDiM on a folder of photographs of good parts and look at what it finds odd.

    python examples/padim.py Dataset
    python examples/padim.py            (renders the sample set first)

The folder is laid out as train/ (good parts only) and test/ (anything). Prints the limit and where
it comes from, a histogram of the scores of each folder in test/, and writes heatmaps to
Output/padim.
"""

import sys
from collections import defaultdict
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.data.sample import render_sample

WIDTH = 40  # characters of the histogram; a score of 0.8, the decision limit, stands at 80 %


def main() -> None:
    """Train, predict, and print."""
    data = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else render_sample("Dataset/Washer", progress=True)
    )

    ad = AD("padim", train_path=data)
    ad.train()
    scores = defaultdict(list)
    for prediction in ad.predict(data / "test", "Output/padim"):
        if prediction.error is None:
            scores[Path(prediction.path).parent.name].append(prediction.score)

    limit = round(0.8 * WIDTH)
    print(f"\n{'scores from 0 to 1':20}{'|':>{limit + 1}} 0.8, the decision limit")
    for kind, values in scores.items():
        marks = [" "] * WIDTH
        for value in values:
            place = min(int(value * WIDTH), WIDTH - 1)
            marks[place] = {" ": ".", ".": ":"}.get(marks[place], "#")
        print(f"{kind:20}{''.join(marks)}")


if __name__ == "__main__":
    main()

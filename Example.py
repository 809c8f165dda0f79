"""Learn a rendered part from good images, then inspect a folder with good and defective ones.

    python -m pip install ".[train]" && python Example.py

Renders the sample set into Dataset/Washer, trains padim into Models/model, and writes heatmaps to
Output/heatmap and boxes to Output/hardcore: half a minute on two cores. Another method's name goes
behind it: `python Example.py AD1` trains the patch autoencoder, for a minute more.
"""

import sys
from collections import defaultdict
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.data.sample import render_sample


def main(method: str = "padim") -> None:
    """Render, train, predict twice, and print what was found."""
    dataset = render_sample("Dataset/Washer", progress=True)

    ad = AD(method, train_path=dataset / "train")
    ad.train()
    ad.predict(dataset / "test", "Output/heatmap")
    predictions = ad.predict(dataset / "test", "Output/hardcore", hardcore=True)

    by_kind = defaultdict(list)
    for prediction in predictions:
        by_kind[Path(prediction.path).parent.name].append(prediction)
    print(f"\n{'test images of':<15}{'images':>8}{'flagged':>9}{'lowest score':>14}{'highest':>9}")
    for kind, found in by_kind.items():
        scores = [prediction.score for prediction in found]
        flagged = sum(prediction.is_anomalous for prediction in found)
        print(f"{kind:<15}{len(found):>8}{flagged:>9}{min(scores):>14.2f}{max(scores):>9.2f}")
    print("\nPictures: Output/heatmap and Output/hardcore, tables: predictions.csv next to them.")


if __name__ == "__main__":
    main(*sys.argv[1:])

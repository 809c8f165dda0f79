"""Which family of methods suits a part? Train one of each and count what they find.

    python examples/families.py Dataset
    python examples/families.py Dataset padim patchcore dfkde lake
    python examples/families.py             (renders the sample set first)

The folder is laid out as train/ (good parts only) and test/ (good/ and any other folders). Each
method is trained at its defaults into Models/<method>. Prints how many images of each folder it
calls anomalous, and how long it took; the fewer of good/ and the more of the others, the better.
Without names: a density of the whole image, a Gaussian at each place, and nearest neighbours; these
learn in seconds. Autoencoders (AD0, vae, lake) take minutes.
"""

import sys
import time
from collections import Counter
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.data.sample import render_sample

METHODS = ("dfkde", "padim", "patchcore")


def main() -> None:
    """Train, inspect, print the table."""
    folder, *methods = sys.argv[1:] or [str(render_sample("Dataset/Washer", progress=True))]
    columns = {}
    for method in methods or METHODS:
        start = time.perf_counter()
        ad = AD(method, folder, save_path=Path("Models", method)).train()
        seconds = time.perf_counter() - start
        images, flagged = Counter(), Counter()
        for prediction in ad.stream(Path(folder, "test")):  # holds one image at a time
            kind = Path(prediction.path).parent.name
            if prediction.error is None:
                images[kind] += 1
                flagged[kind] += prediction.is_anomalous
        columns[method] = (flagged, seconds)
    print(f"\n{'called anomalous':20}" + "".join(f"{method:>14}" for method in columns))
    for kind, count in sorted(images.items(), key=lambda item: (item[0] != "good", item)):
        cells = (f"{flagged[kind]} of {count}" for flagged, _ in columns.values())
        print(f"{kind:20}" + "".join(f"{cell:>14}" for cell in cells))
    times = (f"{seconds:.0f} s" for _, seconds in columns.values())
    print(f"{'training':20}" + "".join(f"{cell:>14}" for cell in times))


if __name__ == "__main__":
    main()

"""What the verdict at the limit is worth: defects found, next to realised false alarms.

    python benchmarks/verdict.py $ANOMALY_AD_DATA
    python benchmarks/verdict.py $ANOMALY_AD_DATA --methods padim dfkde --sets bottle

Trains each method on each set at its defaults and prints the image AUROC, the seconds of the fit,
and for asked false alarm rates of 1, 2 and 5 % the share of defects found and of good test images
rejected. The sets are the folders of real images and two rendered ones. The row "5 folds" has the
limits that unseen scores by five folds would give, the row "former" what a method's
former defaults find with such limits.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.metrics import roc_auc_score

from anomaly_ad import AD
from anomaly_ad.data import render_sample
from anomaly_ad.images import find_images
from anomaly_ad.methods import registry

RATES = (0.01, 0.02, 0.05)
FORMER = {
    "padim": {
        "layers": ["stage1", "stage2", "stage4"],
        "projection": "channels",
        "channels": 128,
        "prior": 20,
        "top_share": 0,
    },
    "patchcore": {"top_share": 0},
}


@contextlib.contextmanager
def five_folds(method: str) -> Iterator[None]:
    """Unseen scores of a statistical method by five folds, whatever else it has."""
    cls = registry.detector_class(method)
    with (
        mock.patch.object(cls, "folds", lambda self, count: min(5, count)),
        mock.patch.object(cls, "unseen_scorer", lambda self, statistic: None),
    ):
        yield


def row(method: str, folder: Path, note: str, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as target, contextlib.redirect_stdout(io.StringIO()):
        begun = time.process_time()
        ad = AD(method, folder, save_path=target, **options).train()
        seconds = time.process_time() - begun
        unseen = ad.model.good_scores()
        files = find_images(folder / "test")
        scores = np.array([p.raw_score for p in ad.stream(files)])
    defective = np.array([file.parent.name != "good" for file in files])
    columns = [f"{roc_auc_score(defective, scores):.3f}", f"{seconds:6.1f}"]
    for rate in RATES:
        above = scores > unseen.calibration(rate).image.limit
        columns.append(f"{above[defective].mean():.2f} / {above[~defective].mean():.3f}")
    print(f"{folder.name:18} {method:10} {note:8} " + "   ".join(columns), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the sets")
    parser.add_argument("--methods", nargs="+", default=list(registry.PRESETS))
    parser.add_argument("--sets", nargs="+", help="names of folders; all by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sets = sorted(path.parent for path in options.data.glob("*/train"))
        for pose in ("small", "any"):
            sets.append(render_sample(Path(name) / f"washer_{pose}", pose=pose))
        print("set, method, unseen scores, AUROC, CPU s of the fit, found / rejected at 1, 2, 5 %")
        for folder in sets:
            if options.sets and folder.name not in options.sets:
                continue
            for method in options.methods:
                row(method, folder, "")
                if registry.preset(method).is_statistical:
                    with five_folds(method):
                        row(method, folder, "5 folds")
                        if method in FORMER:
                            row(method, folder, "former", **FORMER[method])


if __name__ == "__main__":
    main()

"""Detection on a data folder: the sample set, or real images in the MVTec layout.

    python benchmarks/accuracy.py AD1
    python benchmarks/accuracy.py patchcore --pose any
    python benchmarks/accuracy.py AD0 $ANOMALY_AD_DATA/bottle

Trains a method at its defaults on train/good, inspects test/ at thresh 0.8 and prints the image
AUROC, the counts at the limit, the parity of the conversion and the times.
"""

import argparse
import tempfile
import time
from pathlib import Path

from sklearn.metrics import roc_auc_score

from anomaly_ad import AD
from anomaly_ad.data.sample import POSES, render_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method")
    parser.add_argument("data", nargs="?", type=Path, help="default: the sample set, rendered")
    parser.add_argument("--pose", choices=POSES, default="small", help="of the sample set")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or render_sample(
            Path(folder, "sample"), pose=options.pose, progress=True
        )
        ad = AD(options.method, data, save_path=folder, seed=options.seed)
        start = time.perf_counter()
        ad.train(options.epochs)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        predictions = ad.predict(data / "test", save=False)
        per_image = (time.perf_counter() - start) / len(predictions)
    bad = [Path(p.path).parent.name != "good" for p in predictions]
    flagged = [p.is_anomalous for p in predictions]
    manifest = ad.model.manifest
    alarms = sum(f for f, b in zip(flagged, bad, strict=True) if not b)
    found = sum(f for f, b in zip(flagged, bad, strict=True) if b)
    name = options.data or f"the sample set, pose {options.pose}"
    print(f"\n{options.method} on {name}, seed {options.seed}")
    print(f"image AUROC          {roc_auc_score(bad, [p.raw_score for p in predictions]):.4f}")
    print(f"good images flagged  {alarms} of {len(bad) - sum(bad)}")
    print(f"defects found        {found} of {sum(bad)}")
    print(f"stated false alarms  {manifest.calibration.image.stated_rate:.1%}")
    deviation = max(manifest.parity["deviation"].values())
    print(f"Keras vs OpenVINO    {deviation:.1e} of the range")
    epochs = manifest.training.get("epochs")
    print(f"training             {seconds:.0f} s{f', {epochs} epochs' if epochs else ''}")
    print(f"inspecting           {1000 * per_image:.1f} ms per image, first compilation included")


if __name__ == "__main__":
    main()

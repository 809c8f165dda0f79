"""The methods of density on a data folder, and what each of LAKE's terms would find alone.

    python benchmarks/density.py $ANOMALY_AD_DATA/bottle
    python benchmarks/density.py $ANOMALY_AD_DATA/magnetic_tile --gray

Trains AD0 (AD1 with --gray), vae, lake and dfkde at their defaults on train/good and prints for the
test images: image AUROC, best F1 over all limits, and the counts at the calibrated limit. Of lake
also the image AUROC of its terms: the largest reconstruction error (the map's maximum), a density
of the layer-wise errors alone, and one of the code alone.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import roc_auc_score

from anomaly_ad import AD
from anomaly_ad.images import Photograph, find_images
from anomaly_ad.statistics.density import KernelDensity
from anomaly_ad.training.steps import build


def terms(ad: AD, files: list[Path], is_bad: np.ndarray) -> None:
    """What the parts of LAKE's vector find alone."""
    plan = ad.model.manifest.plan
    detector = build(plan).restore(ad.model.detector_state())
    measured = detector.measured()
    outputs = {"vectors": detector.vectors(measured), "error": measured.excess["error"]}
    model = keras.Model(measured.inputs, outputs)
    found = [model(Photograph.read(file, plan.framing).views()) for file in files]
    vectors = detector.reduced(np.concatenate([np.asarray(each["vectors"]) for each in found]))
    learnt = detector.reduced(detector.pool.vectors)
    largest = [float(np.asarray(each["error"]).max()) for each in found]
    code = learnt.shape[1] - (detector.pool.channels - detector.code_length)
    alone = {"largest reconstruction error": largest}
    for name, columns in (("errors of all layers", slice(code, None)), ("code", slice(0, code))):
        density = KernelDensity.of(learnt[:, columns])
        alone[f"density of {name}"] = -density.log_density(vectors[:, columns])
    for name, scores in alone.items():
        print(f"  lake, {name:30} AUROC {roc_auc_score(is_bad, scores):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--gray", action="store_true", help="autoencoders take images as gray")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", help="some of them")
    options = parser.parse_args()
    files = find_images(options.data / "test")
    is_bad = np.array([file.parent.name != "good" for file in files])
    methods = ["dfkde", "AD1" if options.gray else "AD0", "vae", "lake"]
    with tempfile.TemporaryDirectory() as folder:
        for method in options.methods or methods:
            gray = True if options.gray and method != "dfkde" else None
            ad = AD(method, options.data, gray, Path(folder, method), seed=options.seed).train()
            found = ad.evaluate(options.data)
            print(
                f"{method:6} AUROC {found.auroc.value:.4f}   best F1 {found.best_f1.value:.4f}   "
                f"{found.rejected} of {found.n_good} good flagged, "
                f"{found.found} of {found.n_defective} found",
                flush=True,
            )
            if method == "lake":
                terms(ad, files, is_bad)


if __name__ == "__main__":
    main()

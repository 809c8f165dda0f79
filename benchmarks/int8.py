"""Methods in INT8 next to the same in f32: what they find, how fast they are, how large.

    python benchmarks/int8.py $ANOMALY_AD_DATA                       # padim and patchcore
    python benchmarks/int8.py $ANOMALY_AD_DATA --methods dfm dfkde

Trains both on the same images of bottle, magnetic_tile and the sample set (rendered washers), tests
them on the labelled images, and measures file to verdict in processes of their own, by turns.
"""

import argparse
import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.choosing import optimising
from anomaly_ad.choosing.material import find_material
from anomaly_ad.data import render_sample
from anomaly_ad.model import load
from anomaly_ad.training.steps import train


def compared(method: str, name: str, data: Path, work: Path) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        first = AD(method, data, save_path=work, name=f"{name}-{method}").train(review=False).model
        plan = replace(first.manifest.plan, precision="int8")
        material = find_material(data)
        quick = train(plan, material.training, work / f"{name}-{method}-int8", epochs=None)
        models = {"f32": load(first.directory), "int8": quick}
        found = optimising._compared(models, material, optimising.MARGIN, 0)
    for one in (found.before, found.after):
        print(
            f"| {name} | {method} | {one.precision} | {one.auroc.value:.4f} | {one.found} of "
            f"{one.n_defective} | {one.rejected} of {one.n_good} | {one.image_ms:.1f} | "
            f"{one.model_mb:.1f} |",
            flush=True,
        )
    verdict = "; ".join(found.objections) or f"kept, {found.speedup:.2f} times as fast"
    print(f"{name}, {method}: {verdict}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=["padim", "patchcore"])
    parser.add_argument("--sets", nargs="+", default=["sample", "bottle", "magnetic_tile"])
    arguments = parser.parse_args()
    print("| set | method | precision | image AUROC | found | rejected | ms | MB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in arguments.sets:
            data = render_sample(work / "sample") if name == "sample" else arguments.data / name
            for method in arguments.methods:
                compared(method, name, data, work)


if __name__ == "__main__":
    main()

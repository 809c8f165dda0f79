"""Every export of every method, compared with the model that it was made of.

    python benchmarks/exports.py            # all methods on a small sample set, padim on a full one
    python benchmarks/exports.py padim rd   # some of them

Trains each method on rendered washers at 64x64 (two epochs where it trains by gradient; what it
finds is not the point), exports the model to each format, and compares files and model on the test
images: outputs, as part of their range, and verdicts, image by image, with those of `AD.predict`.
"""

import argparse
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.data import render_sample
from anomaly_ad.errors import AnomalyADError
from anomaly_ad.exports import FORMATS
from anomaly_ad.methods import registry

WAYS = [(to, "f32") for to in FORMATS] + [("openvino", "f16")]


def trained(method: str, sample: Path, work: Path, size: tuple[int, int] | None) -> AD:
    options = {"members": ["padim", "dfm"]} if registry.preset(method).combines else {}
    ad = AD(method, sample, save_path=work, name=method, img_size=size, **options)
    epochs = 2 if registry.preset(method).epochs else None
    with redirect_stdout(sys.stderr):
        return ad.train(epochs, review=False)


def rows(ad: AD, method: str, sample: Path, work: Path) -> None:
    for to, weights in WAYS:
        target = work / f"{method}-{to}-{weights}{'.onnx' if to == 'onnx' else '.xml'}"
        begun = time.perf_counter()
        try:
            with redirect_stdout(sys.stderr):
                found = ad.export(target, to, images=sample / "test", weights=weights)
        except AnomalyADError as error:
            print(f"| {method} | {to} | {weights} | {type(error).__name__}: {error} | | | |")
            continue
        seconds = time.perf_counter() - begun
        largest = max(found.parity.deviation.values())
        print(
            f"| {method} | {to} | {weights} | {largest:.1e} | {found.parity.n_images} of "
            f"{found.parity.n_images} | {found.size / 1e6:.1f} | {seconds:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=[*registry.PRESETS])
    arguments = parser.parse_args()
    print("| method | format | weights | largest deviation | verdicts equal | MB | s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        small = render_sample(
            work / "small", n_train=24, n_test_good=6, n_per_defect=2, size=(64, 64)
        )
        for method in arguments.methods:
            try:
                ad = trained(method, small, work, (64, 64))
            except AnomalyADError as error:
                print(f"{method}: {error}", file=sys.stderr)
                continue
            rows(ad, method, small, work)
        if "padim" in arguments.methods:
            full = render_sample(work / "full")
            rows(trained("padim", full, work, None), "padim, sample set", full, work)


if __name__ == "__main__":
    main()

"""Run by .ci/run in two environments: train where TensorFlow is, predict where it is not.

python lean_check.py train DIR
python lean_check.py predict DIR
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from anomaly_ad import AD, MissingExtraError
from anomaly_ad.data.sample import render_sample
from anomaly_ad.images import find_images


def train(folder: Path) -> None:
    sample = render_sample(
        folder / "sample", n_train=12, n_test_good=3, n_per_defect=1, size=(96, 96)
    )
    ad = AD("AD1", sample, save_path=folder, img_size=(96, 96), patch_size=24).train(2)
    scores = [prediction.raw_score for prediction in ad.predict(sample / "test", save=False)]
    (folder / "scores.json").write_text(json.dumps(scores))


def predict(folder: Path) -> None:
    ad = AD(folder / "model", folder / "sample")
    predictions = ad.predict(folder / "sample" / "test", folder / "out")
    command = [sys.executable, "-m", "anomaly_ad", "info", str(folder / "model"), "--verify"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "every file is as it was saved" in out
    assert not {"tensorflow", "keras", "matplotlib", "sklearn", "scipy"} & set(sys.modules)
    expected = json.loads((folder / "scores.json").read_text())
    assert len(expected) == 8
    for prediction, score in zip(predictions, expected, strict=True):
        assert abs(prediction.raw_score - score) <= 1e-5 * max(1, abs(score)), (prediction, score)
    try:
        ad.train(1)
    except MissingExtraError as error:
        assert 'pip install "anomaly-ad[train]"' in str(error)
    else:
        raise AssertionError("training without TensorFlow did not say what is missing")
    page = folder / "report.html"
    assert ad.report(folder / "sample", page).n_good == 3 and page.stat().st_size > 10_000
    ask_service(folder, predictions[0].raw_score)
    print(f"{len(expected)} scores agree to 1e-5 without TensorFlow")


def ask_service(folder: Path, expected: float) -> None:
    """The service of the same environment says the same of the first image."""
    first = find_images(folder / "sample" / "test")[0]
    options = ["--port", "0", "--root", str(folder)]
    command = [sys.executable, "-m", "anomaly_ad", "serve", str(folder / "model"), *options]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = service.stdout.readline().strip()
        body = json.dumps({"data": {"image": str(first.relative_to(folder))}}).encode()
        request = urllib.request.Request(f"{address}/predict", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            raw_score = json.load(answer)["raw_score"]
    finally:
        service.terminate()
        assert service.wait(timeout=60) == 0
    assert abs(raw_score - expected) <= 1e-5 * max(1, abs(expected)), (raw_score, expected)


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](Path(sys.argv[2]))

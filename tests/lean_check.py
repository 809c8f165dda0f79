"""Run by .ci/run in two environments: train where TensorFlow is, predict where it is not.

python lean_check.py train DIR
python lean_check.py predict DIR
"""

import json
import subprocess
import sys
from pathlib import Path

from anomaly_ad import AD, MissingExtraError
from anomaly_ad.sample import render_sample


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
    print(f"{len(expected)} scores agree to 1e-5 without TensorFlow")


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](Path(sys.argv[2]))

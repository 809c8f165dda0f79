"""Model directories of every format must load for ever, with their scores.

tests/data/format<N> holds a model that the first version with format N saved (a small padim,
trained on 24 drawn parts of the test material at 64x64), two images, and what was predicted for
them. Never make one again: a change that needs that is a new format.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_parts

from anomaly_ad import AD
from anomaly_ad.model import load
from anomaly_ad.model.manifest import FORMAT

DATA = Path(__file__).parent / "data"
FROZEN = sorted(DATA.glob("format*"))


def test_every_format_is_frozen():
    assert [folder.name for folder in FROZEN] == [f"format{n}" for n in range(1, FORMAT + 1)]


@pytest.mark.parametrize("folder", FROZEN, ids=lambda folder: folder.name)
def test_an_old_model_gives_its_old_predictions(folder):
    load(folder / "model").verify()
    ad = AD(folder / "model")
    for name, expected in json.loads((folder / "expected.json").read_text()).items():
        prediction = ad.predict(folder / name, save=False)
        # Another processor rounds differently, and a later decoder may too.
        assert prediction.raw_score == pytest.approx(expected["raw_score"], rel=1e-3)
        assert prediction.score == pytest.approx(expected["score"], abs=1e-3)
        assert prediction.is_anomalous == expected["is_anomalous"]
        assert prediction.boxes.tolist() == expected["boxes"]


@pytest.mark.parametrize("folder", FROZEN, ids=lambda folder: folder.name)
def test_an_old_model_takes_further_images(folder, tmp_path):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    model = shutil.copytree(folder / "model", tmp_path / "model")
    before = AD(model).predict(folder / "bar.png", save=False).raw_score
    ad = AD(model).add_images(write_parts(tmp_path / "more", 4, first=50))
    assert ad.model.manifest.training["n_fit"] == 28
    after = ad.predict(folder / "bar.png", save=False).raw_score
    assert np.isfinite(after) and after != before

"""Training with its data in other processes gives the model that it gives in one."""

import numpy as np
import pytest
from conftest import write_parts
from pickled import Pickled

from anomaly_ad import AD
from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.workers import Local, current, using, workers_of

METHODS = {
    "padim": {"channels": 20},
    "padim by channels": {"channels": 20, "projection": "channels"},
    "dfm": {},
    "dfkde": {},
    "patchcore": {"neighbours": 50},
    "patchcore in tiles": {"neighbours": 50, "tiles": (2, 2), "img_size": (32, 32)},
    "padim padded": {"channels": 20, "fit": "pad", "img_size": (64, 96)},
    "ensemble": {"members": ["padim", "dfkde"]},
    "cfa": {"epochs": 1},
    "AD0": {"epochs": 1},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("good"), 24)


def trained(method, good, folder, workers, monkeypatch, **options):
    name, options = method.split()[0], {"img_size": (64, 64), **options}
    epochs, groups = options.pop("epochs", None), options.pop("groups", None)
    monkeypatch.setattr("anomaly_ad.ad.workers_of", lambda *a, **k: workers)
    ad = AD(name, good, save_path=folder, **options)
    return ad.train(epochs, groups=groups, review=False).model


def same(first, second, rtol=1e-6):
    """Limits and scores of unseen images."""
    one, other = first.good_scores(), second.good_scores()
    np.testing.assert_allclose(one.scores, other.scores, rtol=rtol)
    for kind in ("image", "map"):
        limits = [getattr(model.manifest.calibration, kind) for model in (first, second)]
        if limits[0] is not None:
            assert limits[0].limit == pytest.approx(limits[1].limit, rel=rtol)
            assert limits[0].stated_rate == limits[1].stated_rate


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[] if name in ("padim", "dfm") else pytest.mark.slow)
        for name in METHODS
    ],
)
def test_the_model_is_the_same(method, good, tmp_path, monkeypatch):
    options = METHODS[method]
    one = trained(method, good, tmp_path / "one", Local(), monkeypatch, **options)
    many = Pickled()
    other = trained(method, good, tmp_path / "other", many, monkeypatch, **options)
    assert many.sent > 0
    # TensorFlow's threads may add in another order, and training makes that larger.
    rtol = 1e-3 if "epochs" in options else 1e-6
    same(one, other, rtol)
    image = next(good.glob("*.png"))
    scores = [AD(m.directory).predict(image, save=False).raw_score for m in (one, other)]
    assert scores[0] == pytest.approx(scores[1], rel=rtol)


@pytest.mark.slow
def test_in_groups(good, tmp_path, monkeypatch):
    groups = [n // 2 for n in range(24)]
    options = {"channels": 20, "groups": groups}
    one = trained("padim", good, tmp_path / "one", Local(), monkeypatch, **options)
    other = trained("padim", good, tmp_path / "other", Pickled(), monkeypatch, **options)
    same(one, other)


def test_broken_images_are_all_named(good, tmp_path, monkeypatch):
    folder = write_parts(tmp_path / "good", 8)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"none")
    with pytest.raises(DataError, match=r"2 of 10 training images cannot be used(.|\n)*a.png"):
        trained("padim", folder, tmp_path / "model", Pickled(), monkeypatch, channels=20)


def test_workers_are_those_of_the_context():
    assert isinstance(current(), Local)
    many = Pickled()
    with using(many):
        assert current() is many
    assert isinstance(current(), Local)
    with pytest.raises(KeyError), using(many):
        raise KeyError
    assert isinstance(current(), Local)


def test_engines_by_name():
    assert isinstance(workers_of(), Local)
    with pytest.raises(OptionError, match=r"engine is one of local, ray"):
        workers_of("dask")
    with pytest.raises(OptionError, match=r"workers is a number from 1"):
        workers_of("ray", workers=0)

"""DFKDE: its formula, a sample of many images, and what has no map."""

import csv

import numpy as np
import pytest
from conftest import draw_part, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.drawing.pictures import BOX_COLOUR
from anomaly_ad.errors import BackboneError, ModelError, OptionError
from anomaly_ad.images import Framing, read_image
from anomaly_ad.methods import dfkde, registry

SPEC = Framing(64, 64, 3)


def detector(**options):
    parameters = {**registry.preset("dfkde").parameters, **options}
    return dfkde.DFKDE(SPEC, 32, 0, **parameters)


def features_of(method, count, first=0):
    images = np.stack([draw_part(first + n) for n in range(count)])
    return np.asarray(method.features()(images)["features"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A trained model, and folders of good and defective parts."""
    root = tmp_path_factory.mktemp("dfkde")
    good = write_parts(root / "good", 24)
    ad = AD("dfkde", good, save_path=root, img_size=(64, 64)).train()
    write_parts(root / "test" / "good", 2, first=100)
    write_parts(root / "test" / "bar", 2, first=200, defect=True)
    return ad, root / "test"


@pytest.mark.slow
@pytest.mark.parametrize("bandwidth", ["scott", "silverman"])
def test_the_score_is_the_density_of_the_principal_components(bandwidth):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs the extra 'eval'")
    stats = pytest.importorskip("scipy.stats", reason="needs the extra 'eval'")
    method = detector(variance=0.9, bandwidth=bandwidth)
    features, others = features_of(method, 40), features_of(method, 5, 100)
    method.statistic.update(features[:, None])
    pca = decomposition.PCA(0.9, svd_solver="full").fit(features.astype(np.float64))
    density = stats.gaussian_kde(pca.transform(features).T, bw_method=bandwidth)
    received = method.scorer(method.statistic)({"features": others})["score"]
    np.testing.assert_allclose(received, -density.logpdf(pca.transform(others).T), rtol=1e-3)


def test_features_are_means_over_the_image_of_all_layers():
    keras = pytest.importorskip("keras")
    inputs = keras.Input((64, 64, 3))
    first = keras.layers.AveragePooling2D(8, name="first")(inputs)
    second = keras.layers.Lambda(lambda x: 2 * x[..., :1], name="second")(first)
    own = keras.Model(inputs, second)
    method = detector(backbone=own, layers=["first", "second"])
    images = np.stack([draw_part(n) for n in range(3)])
    means = images.mean(axis=(1, 2))
    expected = np.concatenate([means, 2 * means[:, :1]], axis=1)
    received = np.asarray(method.features()(images)["features"])
    np.testing.assert_allclose(received, expected, rtol=1e-5)


def features_width(method):
    return method.features().output["features"].shape[-1]


@pytest.mark.slow
def test_of_many_images_a_sample_is_kept(monkeypatch):
    monkeypatch.setattr(dfkde, "_IMAGES", 30)
    method = detector()
    method.statistic.update(np.random.default_rng(0).normal(size=(100, 1, features_width(method))))
    assert method.statistic.count == 100 and len(method.statistic.vectors) == 30
    state = method.state()
    assert len(state["vectors"]) == 30 and detector().restore(state).statistic.count == 100


def test_there_is_no_map_and_no_box(model):
    ad, folder = model
    predictions = ad.predict(folder, save=False, maps=True)
    assert [p.is_anomalous for p in predictions] == [True, True, False, False]
    assert all(p.anomaly_map is None and p.boxes.shape == (0, 4) for p in predictions)
    single = ad.predict(predictions[0].path, save=False)
    assert single.anomaly_map is None and single.raw_score == predictions[0].raw_score
    assert ad.model.manifest.outputs == ["score"] and ad.model.manifest.calibration.map is None


@pytest.mark.parametrize("hardcore", [False, True])
def test_the_picture_of_an_anomalous_image_has_a_frame(model, tmp_path, hardcore):
    ad, folder = model
    predictions = ad.predict(folder, tmp_path, hardcore=hardcore)
    for prediction in predictions:
        original = read_image(prediction.path)
        name = "/".join(prediction.path.split("/")[-2:])
        picture = read_image(tmp_path / name)
        inner = (slice(2, -2), slice(2, -2))
        np.testing.assert_array_equal(picture[inner], original[inner])
        framed = (picture[0] == BOX_COLOUR).all() and (picture[:, -1] == BOX_COLOUR).all()
        assert framed == prediction.is_anomalous
        assert framed or (picture == original).all()
    with (tmp_path / "predictions.csv").open() as table:
        assert [row["n_boxes"] for row in csv.DictReader(table)] == ["0"] * 4


def test_test_img_shows_the_original_beside_the_verdict(model):
    ad, folder = model
    good, bad = (ad.test_img(folder / name) for name in ("good/100.png", "bar/200.png"))
    assert good.shape == bad.shape == (64, 130, 3)
    np.testing.assert_array_equal(good[:, -64:], good[:, :64])
    assert (bad[0, -64:] == BOX_COLOUR).all() and not (bad[0, :64] == BOX_COLOUR).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"variance": 1.5}, r"variance .*0.5 to 0.9999.*1.5"),
        ({"bandwidth": "wide"}, r"bandwidth .*scott, silverman, cross_validation.*'wide'"),
        ({"bandwidth": 0}, r"bandwidth .*0.01 to 100.*0"),
        ({"bandwidth": []}, r"bandwidth .*\[\]"),
        ({"layers": []}, "layers"),
    ],
)
def test_options_out_of_range(option, message):
    with pytest.raises(OptionError, match=message):
        AD("dfkde", **option)


def test_an_unknown_layer_lists_those_there_are():
    with pytest.raises(BackboneError, match="stage6"):
        detector(layers=["stage9"])


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["short", "none", "nan", "type", "missing", "more"])
def test_a_state_of_something_else_is_refused(damage):
    method = detector()
    method.statistic.update(features_of(method, 12)[:, None])
    state = dict(method.state())
    if damage == "short":
        state["times"] = state["times"][:-1]
    elif damage == "none":
        state |= {"vectors": state["vectors"][:0], "times": state["times"][:0]}
    elif damage == "nan":
        state["vectors"] = state["vectors"] * np.float32("nan")
    elif damage == "type":
        state["vectors"] = state["vectors"].astype(np.float64)
    elif damage == "missing":
        del state["times"]
    else:
        state["other"] = np.zeros(3)
    with pytest.raises(ModelError, match=r"state|belong"):
        detector().restore(state)

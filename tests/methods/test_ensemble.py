"""Several methods as one model: units, shared graph, limit, saved members, and what is refused."""

import numpy as np
import openvino as ov
import pytest
from conftest import draw_part, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, DataError, ModelError, OptionError
from anomaly_ad.images import Framing
from anomaly_ad.methods.base import Detector
from anomaly_ad.methods.ensemble import Ensemble, Member

SMALL = {"img_size": (64, 64), "patch_size": 16}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("ensemble") / "parts", 24)


@pytest.fixture(scope="module")
def saved(parts, tmp_path_factory):
    """Models of the members, and one of both by their names."""
    folder = tmp_path_factory.mktemp("saved")
    options = {**SMALL, "save_path": folder}
    models = {
        name: AD(name, parts, name=name, **options).train(review=False)
        for name in ("padim", "dfm", "ensemble")
    }
    return {name: ad.model for name, ad in models.items()}


class Two(Detector):
    def __init__(self, is_log=False):
        self.scores_are_logs = is_log


def ensemble_of(*detectors):
    members = [Member(f"m{n}", "padim", {}, each) for n, each in enumerate(detectors)]
    return Ensemble(Framing(16, 16, 3), 4, 0, members=members)


def test_answers_are_standardised_by_good_images_and_averaged():
    rng = np.random.default_rng(0)
    plain, logs = np.exp(rng.normal(3, 0.5, 5001)), rng.normal(-7, 2, 5001)
    ensemble = ensemble_of(Two(), Two(is_log=True))
    ensemble.standardise([(plain, plain), (logs, None)])
    np.testing.assert_allclose(ensemble.middle, [[3, -7], [3, 0]], atol=0.1)
    np.testing.assert_allclose(ensemble.spread, [[0.5, 2], [0.5, 1]], rtol=0.1)
    middle, spread = ensemble.middle, ensemble.spread
    first = {"score": np.exp([4.0, 2.0]), "anomaly_map": np.exp(np.full((2, 16, 16), 4.0))}
    found = ensemble.combined(np, [first, {"score": np.array([-3.0, -7.0])}])
    expected = (np.array([4.0, 2.0]) - middle[0, 0]) / spread[0, 0]
    expected = (expected + (np.array([-3.0, -7.0]) - middle[0, 1]) / spread[0, 1]) / 2
    np.testing.assert_allclose(found["score"], expected, rtol=1e-6)
    above = (4.0 - middle[1, 0]) / spread[1, 0]  # only one member has a map
    np.testing.assert_allclose(found["anomaly_map"], above + 1, rtol=1e-6)


def test_maps_are_positive_rise_with_the_members_and_are_zero_outside():
    ensemble = ensemble_of(Two(), Two())
    good = np.random.default_rng(1).uniform(1, 2, 99)
    ensemble.standardise([(good, good), (good, good)])
    values = np.r_[0, np.geomspace(1e-3, 100, 255)].reshape(1, 16, 16)
    both = [{"score": np.ones(1), "anomaly_map": values}] * 2
    inside = np.ones((1, 16, 16), np.uint8)
    inside[0, 15] = 0
    found = ensemble.combined(np, both, inside)["anomaly_map"]
    assert (found[0, 15] == 0).all() and (np.diff(found[0, :15].ravel()) >= 0).all()
    assert found.min() >= 0
    # One member that sees nothing leaves half of what the other sees.
    blind = {"score": np.ones(1), "anomaly_map": np.zeros((1, 16, 16))}
    half = ensemble.combined(np, [both[0], blind])["anomaly_map"]
    full = ensemble.combined(np, both)["anomaly_map"]
    np.testing.assert_allclose(half, full / 2, atol=1e-6)


def test_equal_scores_of_good_images_leave_a_finite_unit():
    ensemble = ensemble_of(Two(), Two())
    ensemble.standardise([(np.ones(9), np.zeros(9)), (np.zeros(9), None)])
    same = {"score": np.ones(1), "anomaly_map": np.zeros((1, 16, 16))}
    found = ensemble.combined(np, [same, {"score": np.zeros(1)}])
    assert np.isfinite(found["score"]).all() and np.isfinite(found["anomaly_map"]).all()


def test_the_score_is_the_mean_of_the_members_own(saved, parts):
    model = saved["ensemble"]
    state = model.state()
    framing = model.manifest.plan.framing
    view = framing.views(draw_part(700, defect=True))
    z = []
    for index, name in enumerate(("padim", "dfm")):
        raw = np.log(saved[name].engine.run(view)["score"])
        z.append((raw - state["middle"][0, index]) / state["spread"][0, index])
    np.testing.assert_allclose(model.engine.run(view)["score"], np.mean(z, axis=0), rtol=1e-3)


def test_what_members_share_is_one_in_the_graph(saved):
    def convolutions(model):
        file = next(name for name in model.files if name.endswith(".xml"))
        graph = ov.Core().read_model(model.directory / file)
        return sum("Convolution" in each.get_type_name() for each in graph.get_ops())

    counts = {name: convolutions(model) for name, model in saved.items()}
    assert counts["ensemble"] == max(counts["padim"], counts["dfm"])
    sizes = {
        name: next(size for file, size in _sizes(model) if file.endswith(".bin"))
        for name, model in saved.items()
    }
    assert sizes["ensemble"] < 0.8 * (sizes["padim"] + sizes["dfm"])


def _sizes(model):
    return [(name, entry["size"]) for name, entry in model.files.items()]


def test_the_limit_comes_from_images_that_no_member_has_learnt(saved):
    manifest = saved["ensemble"].manifest
    assert manifest.calibration.image.n_images == 24
    assert manifest.training["folds"] == 24
    assert [one["name"] for one in manifest.training["members"]] == ["padim", "dfm"]
    scores = saved["ensemble"].good_scores().scores
    singles = [saved[name].good_scores(of_training=True).scores for name in ("padim", "dfm")]
    state = saved["ensemble"].state()
    z = [
        (np.log(own) - state["middle"][0, n]) / state["spread"][0, n]
        for n, own in enumerate(singles)
    ]
    np.testing.assert_allclose(scores, np.mean(z, axis=0), rtol=1e-3, atol=1e-3)


def test_saved_members_make_the_same_model(saved, parts, tmp_path):
    paths = [saved[name].directory for name in ("padim", "dfm")]
    ad = AD("ensemble", parts, members=paths, save_path=tmp_path).train(review=False)
    assert ad.img_size == (64, 64)
    view = ad.model.manifest.plan.framing.views(draw_part(700, defect=True))
    expected = saved["ensemble"].engine.run(view)
    for name, values in ad.model.engine.run(view).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-4)
    limits = [model.manifest.calibration.image.limit for model in (ad.model, saved["ensemble"])]
    assert limits[0] == pytest.approx(limits[1], rel=1e-3)


@pytest.mark.slow
def test_a_member_that_is_trained_by_gradient_brings_the_images_it_has_not_learnt(parts, tmp_path):
    options = {**SMALL, "save_path": tmp_path}
    ad = AD("ensemble", parts, members=["dfm", "cfa"], **options).train(2, review=False)
    training = ad.model.manifest.training
    assert training["n_calibration"] == ad.model.manifest.calibration.image.n_images == 5
    assert training["calibrated_on"] == training["members"][1]["calibrated_on"]
    assert training["members"][1]["epochs"] == 2
    again = AD(ad.model.directory, parts).train(1, review=False)
    assert again.model.manifest.training["members"][1]["epochs"] == 1  # members begin again


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"members": ["padim"]}, OptionError, "two members or more"),
        ({"members": ["padim", "padim"]}, OptionError, "each once"),
        ({"members": ["padim", "padym"]}, ModelError, "'padym' is neither the name of a method"),
        ({"members": ["padim", "ensemble"]}, OptionError, "a single method, not an ensemble"),
        ({"tiles": (2, 2)}, OptionError, "does not take photographs in tiles"),
        ({"members": "padim"}, OptionError, "a list of names"),
    ],
)
def test_what_cannot_be_a_member(options, error, message):
    with pytest.raises(error, match=message):
        AD("ensemble", **options)


def test_saved_members_that_do_not_fit_together_are_refused(saved, parts, tmp_path):
    other = AD("dfm", parts, img_size=(96, 64), save_path=tmp_path, name="large")
    other.train(review=False)
    pair = [str(saved["padim"].directory), str(other.model.directory)]
    with pytest.raises(OptionError, match=r"height \(64 and 96\)"):
        AD("ensemble", members=pair)
    with pytest.raises(OptionError, match="have their own img_size"):
        AD("ensemble", members=[pair[0], "dfm"], img_size=(64, 64))
    further = write_parts(tmp_path / "further", 12, first=300)
    with pytest.raises(DataError, match="was trained on other images"):
        AD("ensemble", further, members=[pair[0], "dfm"], save_path=tmp_path).train()

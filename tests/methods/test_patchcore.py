import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, DataError, OptionError
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.model.plan import Plan
from anomaly_ad.statistics.neighbours import NOISE
from anomaly_ad.training import unseen
from anomaly_ad.training.steps import build

SMALL = {"img_size": (64, 64), "patch_size": 16}
LAYERS = ["stage1", "stage2", "stage4"]


def detector(method="patchcore", **options):
    return build(Plan.from_options(method, {**SMALL, **options}))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("patchcore", {"neighbours": 9}, "neighbours is a whole number from 10 to 20000"),
        ("patchcore", {"neighbours": 2e3}, "neighbours is a whole number"),
        ("patchcore", {"neighbours": True}, "neighbours is a whole number"),
        ("patchcore", {"pool": 999}, "pool is a whole number from 1000"),
        ("patchcore", {"top_share": 1.1}, "top_share is a number from 0 to 1"),
        ("patchcore", {"blur": float("inf")}, "blur is a number of pixels"),
        ("patchcore", {"variance": 0.9}, "no option 'variance'.*neighbours, pool"),
    ],
)
def test_options_that_cannot_be_used(method, options, message):
    with pytest.raises(OptionError, match=message):
        detector(method, **options)


def naive_scores(features, vectors, mean, scale):
    """Equations 6 and 7 of the paper, one cell at a time, in float64."""
    bank = (vectors.astype(np.float64) - mean) * scale
    scores = []
    for image in features.reshape(len(features), -1, features.shape[-1]):
        cells = (image.astype(np.float64) - mean) * scale
        gaps = np.linalg.norm(cells[:, None] - bank, axis=-1)
        gaps = np.sqrt(gaps**2 + NOISE * bank.shape[1])
        cell = gaps.min(axis=1).argmax()
        winner = gaps[cell].argmin()
        around = np.argsort(np.linalg.norm(bank - bank[winner], axis=1))[:9]
        weights = np.exp(gaps[cell, around])
        scores.append((1 - np.exp(gaps[cell, winner]) / weights.sum()) * gaps[cell, winner])
    return np.array(scores)


@pytest.mark.slow
def test_the_score_is_that_of_the_paper():
    method = detector(top_share=0)  # every cell is a neighbour, so that the weight counts
    images = np.stack([draw_part(n) for n in range(8)])
    features = np.asarray(method.features()(images)["features"])
    method.statistic.update(features.reshape(8, -1, features.shape[-1]))
    coreset = method.statistic.coreset()
    tested = np.stack([draw_part(50 + n, defect=n % 2 == 0) for n in range(6)])
    features = np.asarray(method.features()(tested)["features"])
    expected = naive_scores(features, coreset.vectors, coreset.mean, coreset.scale)
    vectors = features.reshape(6, -1, features.shape[-1])
    plain = method.distances(method.statistic)(vectors, None)["cells"]
    assert (expected < 0.99 * plain.max(axis=1)).any()
    received = method.scorer(method.statistic)({"features": features})["score"]
    np.testing.assert_allclose(received, expected, rtol=1e-3)
    np.testing.assert_allclose(method.graph()(tested)["score"], expected, rtol=1e-3)


@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_the_score_is_the_mean_of_the_highest_cells(share):
    method = detector(top_share=share, neighbours=50)
    images = np.stack([draw_part(n, defect=n == 5) for n in range(6)])
    features = np.asarray(method.features()(images)["features"])
    vectors = features.reshape(6, -1, features.shape[-1])
    method.statistic.update(vectors[:5])
    cells = np.sort(method.distances(method.statistic)(vectors, None)["cells"], axis=1)
    expected = cells[:, -max(1, round(share * 16)) :].mean(axis=1)
    received = method.scorer(method.statistic)({"features": features})["score"]
    np.testing.assert_allclose(received, expected, rtol=1e-5)
    np.testing.assert_allclose(method.graph()(images)["score"], expected, rtol=1e-3)


def test_a_model_without_a_share_keeps_the_score_of_the_paper():
    saved = Plan.from_options("patchcore", SMALL).to_dict()
    assert saved["parameters"].pop("top_share") == 0.02
    assert Plan.from_dict(saved).parameters["top_share"] == 0.0


def test_layers_coarser_than_the_usual_grid_are_enlarged():
    assert detector(layers=["stage4", "stage5"]).grid == (4, 4)
    assert detector(layers=["stage5"]).grid == (2, 2)


def test_unseen_scores_are_those_of_leaving_out_one_image():
    """On average: a coreset of the same size covers fewer images more densely."""
    count = 40
    method = detector(neighbours=100)
    plan = Plan.from_options("patchcore", {**SMALL, "neighbours": 100})
    images = np.stack([draw_part(n) for n in range(count)])
    features = FeatureSet({"features": np.asarray(method.features()(images)["features"])[:, None]})
    method.learn_all(features)
    received, folds = unseen.cross_fit(method, features, plan, np.arange(count))
    assert folds == 20
    expected = []
    for n in range(count):
        own = features.gather(method, "learn", method.new_statistic(), np.array([n]))
        score = method.scorer(method.statistic.without(own))
        expected.append(float(score(features[n : n + 1])["score"][0]))
    ratio = received.scores / expected
    assert 0.99 < ratio.mean() < 1.02
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.1


@pytest.mark.slow
def test_finer_layers_are_averaged_over_their_neighbours_and_the_coarsest_is_not():
    image = draw_part(0)[None]
    pooled, plain = (
        np.asarray(detector(name, layers=LAYERS, **extra).features()(image)["features"])
        for name, extra in (
            ("patchcore", {}),
            ("padim", {"projection": "channels", "channels": 1000}),
        )
    )
    assert pooled.shape == plain.shape == (1, 4, 4, 176)
    np.testing.assert_allclose(pooled[..., 64:], plain[..., 64:], rtol=1e-4, atol=1e-4)
    assert np.abs(pooled[..., :64] - plain[..., :64]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("patchcore", {"blur": 0.0}),
        ("patchcore", {"neighbours": 10}),
        ("patchcore", {"layers": ["stage4"]}),
    ],
)
def test_every_option_changes_something(tmp_path, method, options):
    folder = write_parts(tmp_path / "parts", 12)
    part = draw_part(300, defect=True)
    maps = [
        AD(method, folder, save_path=tmp_path / str(n), **SMALL, **extra)
        .train()
        .predict(part, save=False)
        .anomaly_map
        for n, extra in enumerate(({}, options))
    ]
    assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_the_pool_bounds_what_is_kept():
    method = detector(pool=1000, neighbours=50)
    random = np.random.default_rng(0)
    for _ in range(5):
        method.statistic.update(random.normal(size=(40, 16, 176)).astype(np.float32))
    assert method.statistic.vectors.shape == (1000, 176) and method.statistic.count == 200
    assert method.statistic.coreset().vectors.shape == (50, 176)


@pytest.mark.slow
def test_parts_may_lie_anywhere(tmp_path):
    """The same part in all four quarter turns: what is new is found, a new turn is not."""

    def turned(seed, *, defect=False):
        image = draw_part(seed, size=96)
        image[40:56, 70:90] = (200, 160, 40)  # a mark that shows the rotation
        if defect:
            image[60:72, 30:42] = 250
        return np.ascontiguousarray(np.rot90(image, seed % 4))

    for n in range(24):
        write_image(tmp_path / "parts" / f"{n:02d}.png", turned(n))
    ad = AD("patchcore", tmp_path / "parts", save_path=tmp_path, img_size=(96, 96)).train()
    good = [ad.predict(turned(100 + n), save=False).raw_score for n in range(8)]
    bad = [ad.predict(turned(100 + n, defect=True), save=False).raw_score for n in range(8)]
    assert min(bad) > 1.2 * max(good)


@pytest.mark.slow
def test_the_input_takes_the_shape_of_the_images(tmp_path, capsys):
    for n in range(10):
        write_image(tmp_path / "wide" / f"{n}.png", np.hstack([draw_part(n), draw_part(n + 50)]))
    ad = AD("padim", tmp_path / "wide", save_path=tmp_path)
    assert ad.img_size == (256, 256)
    ad.train()
    assert "Model input: 192x352 pixels" in capsys.readouterr().out
    assert ad.img_size == AD(tmp_path / "model").img_size == (192, 352)
    prediction = ad.predict(np.hstack([draw_part(90), draw_part(91)]), save=False)
    assert prediction.anomaly_map.shape == (192, 352)
    with pytest.raises(DataError, match="at least 10 images"):
        ad.load_data(write_parts(tmp_path / "few", 5)).train()
    assert ad.img_size == (192, 352)  # that of the model there is
    ad.load_data(write_parts(tmp_path / "square", 10)).train()
    assert ad.img_size == (256, 256)


@pytest.mark.slow
def test_parts_that_are_almost_the_same(tmp_path):
    """Which of many equal neighbours is nearest is a matter of rounding; no proof fails by it."""
    image = draw_part(0)
    for n in range(10):
        image[20, 20 + n] += 1
        write_image(tmp_path / "parts" / f"{n}.png", image)
    ad = AD("patchcore", tmp_path / "parts", save_path=tmp_path, **SMALL).train()
    part = draw_part(0, defect=True)
    assert ad.predict(part, save=False).is_anomalous
    assert not ad.predict(image, save=False).is_anomalous


@pytest.mark.slow
def test_a_background_that_is_everywhere_the_same_is_known_to_all(tmp_path):
    """Held-out images score like new good ones, not as if they lacked the background."""
    circle = np.hypot(*np.mgrid[-64:64, -64:64]) < 20
    for n in range(24):
        noise = np.random.default_rng(n).integers(90, 160, (128, 128, 3))
        image = np.where(circle[..., None], noise, 0).astype(np.uint8)
        write_image(tmp_path / ("parts" if n < 16 else "more") / f"{n:02d}.png", image)
    options = {"img_size": (128, 128), "layers": ["stage1", "stage2"]}
    ad = AD("patchcore", tmp_path / "parts", save_path=tmp_path, **options).train()
    good = [p.raw_score for p in ad.predict(tmp_path / "more", save=False)]
    held_out = ad.model.state()["held_out_scores"]
    assert np.median(held_out) < 1.3 * np.median(good)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["patchcore", "dfm"])
def test_other_arithmetic_has_limits_in_its_own(method, tmp_path):
    folder = write_parts(tmp_path / "parts", 16)
    options = {"img_size": (128, 128), "patch_size": 16}
    limits = {}
    for precision in ("f32", "bf16"):
        ad = AD(method, folder, save_path=tmp_path / precision, precision=precision, **options)
        limits[precision] = ad.train().model.manifest.calibration
        assert sum(p.is_anomalous for p in ad.predict(folder, save=False)) <= 2
        assert ad.predict(draw_part(300, defect=True), save=False).is_anomalous
    assert limits["bf16"].image.limit == pytest.approx(limits["f32"].image.limit, rel=0.2)
    assert limits["bf16"].map.limit == pytest.approx(limits["f32"].map.limit, rel=0.2)


@pytest.mark.slow
def test_scores_and_maxima_are_each_raised_by_what_their_own_output_deviates(tmp_path, monkeypatch):
    folder = write_parts(tmp_path / "parts", 12)
    plain = AD("dfm", folder, save_path=tmp_path / "plain", **SMALL).train().model
    monkeypatch.setattr(unseen, "_prove_formula", lambda *_: unseen._Higher(1.0, 10.0))
    raised = AD("dfm", folder, save_path=tmp_path / "raised", **SMALL).train().model
    before, after = plain.manifest.calibration, raised.manifest.calibration
    assert after.image.limit == pytest.approx(before.image.limit + 1, rel=1e-5)
    assert after.map.limit == pytest.approx(before.map.limit + 10, rel=1e-5)

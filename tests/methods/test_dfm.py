"""DFM: its score by the definition, images left out against true refits, and what is kept."""

import time

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, ModelError, OptionError
from anomaly_ad.methods.dfm import parts_of
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.model.plan import Plan
from anomaly_ad.training.steps import build
from anomaly_ad.training.unseen import cross_fit

SMALL = {"img_size": (64, 64), "patch_size": 16}
PLAN = Plan.from_options("dfm", SMALL)


def plan_of(side):
    return Plan.from_options("dfm", {"img_size": (side, side)})


def detector(**options):
    return build(Plan.from_options("dfm", {**SMALL, **options}))


def features_of(method, count, *, random=None):
    """Features of drawn parts, or random ones of parts that vary in a few ways."""
    if random is None:
        images = np.stack([draw_part(n) for n in range(count)])
        found = {name: np.asarray(some) for name, some in method.features()(images).items()}
    else:
        shapes = {name: some.shape[1:] for name, some in method.features().output.items()}
        found = {}
        for name, shape in shapes.items():
            ways = random.normal(size=(12, *shape)) * random.gamma(1, 1, (12, *[1] * len(shape)))
            kind = random.normal(size=(count, 12)) @ ways.reshape(12, -1)
            noise = random.normal(size=(count, *shape))
            found[name] = (kind.reshape(noise.shape) + noise).astype(np.float32)
    return FeatureSet({name: some[:, None] for name, some in found.items()})


def fitted(features, indices, **options):
    method = detector(**options)
    for batch in features.batches(indices):
        method.learn(method.statistic, batch)
    return method


def left_out_alone(features, index):
    """The score of an image by a fit to all others."""
    rest = np.delete(np.arange(len(features)), index)
    method = fitted(features, rest)
    return method.scorer(method.statistic)(features[np.array([index])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": 1.0}, "variance is a number from 0.5 to 0.9999"),
        ({"variance": "most"}, "variance is a number"),
        ({"image_layers": []}, "image_layers is a list of names"),
        ({"layers": [f"stage{n}" for n in range(7)]}, "640 channels together at most.*784"),
        ({"image_layers": [f"stage{n}" for n in range(7)]}, "640 channels.*784"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(OptionError, match=message):
        detector(**options)


@pytest.mark.parametrize(
    ("size", "parts"),
    [((384, 384), (4, 4)), ((256, 576), (3, 6)), ((768, 192), (8, 2)), ((32, 2048), (1, 32))],
)
def test_an_image_has_about_16_parts_that_are_nearly_square(size, parts):
    assert parts_of(size) == parts


def test_the_score_is_the_distance_by_the_covariance_in_full_dimension():
    method = detector()
    features = features_of(method, 23)
    method = fitted(features, np.arange(20))
    images = features[slice(0, 23)]["image"].astype(np.float64)
    assert images.shape[1] == 2 * 2 * 192  # stage 5 has 2 x 2 cells
    variances, basis = np.linalg.eigh(np.cov(images[:20].T))
    variances, basis = variances[::-1], basis[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(variances), 0.97 * variances.sum())) + 1
    rest = 0.03 * variances.sum() / (images.shape[1] - kept)
    inside = (images - images[:20].mean(axis=0)) @ basis
    expected = np.sqrt((inside**2 / np.append(variances[:kept], [rest] * (768 - kept))).sum(axis=1))
    found = method.scorer(method.statistic)(features[slice(0, 23)])["score"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    drawn = np.stack([draw_part(n) for n in range(23)])
    np.testing.assert_allclose(method.graph()(drawn)["score"], expected, rtol=2e-3)


def test_the_map_is_the_reconstruction_error_of_the_cells():
    method = detector(blur=0.0)
    features = features_of(method, 12)
    method = fitted(features, np.arange(12), blur=0.0)
    cells = features[slice(0, 12)]["features"].reshape(-1, 112).astype(np.float64)
    centred = cells - cells.mean(axis=0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(values**2), 0.97 * (values**2).sum())) + 1
    errors = np.linalg.norm(centred - centred @ rows[:kept].T @ rows[:kept], axis=1)
    found = method.distances(method.statistic)(cells.reshape(12, -1, 112), None)["cells"]
    np.testing.assert_allclose(found.ravel(), errors, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [10, pytest.param(16, marks=pytest.mark.slow)])
def test_of_few_images_each_is_scored_by_a_fit_to_all_others(count):
    method = detector()
    features = features_of(method, count)
    method.learn_all(features)
    found, folds = cross_fit(method, features, PLAN, np.arange(count))
    assert folds == count
    for index in (0, count - 1):
        expected = left_out_alone(features, index)
        assert found.scores[index] == pytest.approx(float(expected["score"][0]), rel=1e-4)
        assert found.maxima[index] == pytest.approx(float(expected["anomaly_map"].max()), rel=1e-4)


@pytest.mark.slow
def test_60_fits_score_as_leaving_out_one_does():
    """With 130 images two or three are left out together: that changes scores by less than 1 %."""
    method = detector()
    features = features_of(method, 130, random=np.random.default_rng(0))
    method.learn_all(features)
    found, folds = cross_fit(method, features, PLAN, np.arange(130))
    assert folds == 60
    some = np.arange(0, 130, 9)
    alone = np.array([left_out_alone(features, index)["score"][0] for index in some])
    np.testing.assert_allclose(found.scores[some], alone, rtol=0.01)


@pytest.mark.slow
def test_calibrating_200_images_takes_seconds():
    method = detector(img_size=(384, 384))
    features = features_of(method, 200, random=np.random.default_rng(0))
    assert features[slice(0, 1)]["image"].shape == (1, 3072)
    start = time.process_time()
    method.learn_all(features)
    _, folds = cross_fit(method, features, plan_of(384), np.arange(200))
    assert folds == 60 and time.process_time() - start < 30
    assert sum(array.nbytes for array in method.state().values()) < 3e6


def test_of_many_images_a_sample_is_kept():
    method = detector()
    random = np.random.default_rng(0)
    statistic = method.new_statistic()
    for _ in range(5):
        statistic.images.update(random.normal(size=(500, 1, 768)).astype(np.float32))
    assert statistic.count == 2500 and statistic.images.vectors.shape == (2000, 768)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"variance": 0.6}, ["anomaly_map", "raw_score"]),
        ({"layers": ["stage2"]}, ["anomaly_map"]),
        ({"image_layers": ["stage4"]}, ["raw_score"]),
        ({"blur": 0.0}, ["anomaly_map"]),
    ],
)
def test_every_option_changes_something(tmp_path, options, what):
    folder = write_parts(tmp_path / "parts", 12)
    part = draw_part(300, defect=True)
    first, second = (
        AD("dfm", folder, save_path=tmp_path / str(n), **SMALL, **extra)
        .train()
        .predict(part, save=False)
        for n, extra in enumerate(({}, options))
    )
    changed = {
        "anomaly_map": np.abs(first.anomaly_map - second.anomaly_map).max() > 1e-3,
        "raw_score": abs(first.raw_score - second.raw_score) > 1e-3,
    }
    assert [name for name in changed if changed[name]] == what


def test_models_of_before_are_read_and_say_that_nothing_can_be_added():
    values = plan_of(256).to_dict()
    del values["parameters"]["image_layers"]
    plan = Plan.from_dict(values)
    assert plan.parameters["image_layers"] == ["stage4"]
    state = {"images_covariance": np.zeros((1, 3)), "images_mean": np.zeros((1, 2))}
    with pytest.raises(ModelError, match="predicts as ever; to add images, train it again"):
        detector().restore(state)


@pytest.mark.slow
def test_parts_that_are_almost_the_same(tmp_path):
    image = draw_part(0)
    for n in range(10):
        image[20, 20 + n] += 1
        write_image(tmp_path / "parts" / f"{n}.png", image)
    ad = AD("dfm", tmp_path / "parts", save_path=tmp_path, **SMALL).train()
    assert ad.predict(draw_part(0, defect=True), save=False).is_anomalous
    assert not ad.predict(image, save=False).is_anomalous


@pytest.mark.slow
def test_it_learns_from_few_images(tmp_path):
    """Held-out scores are in the unit of the model's, also where folds are smaller than needed."""
    for count in (10, 14, 20):
        folder = write_parts(tmp_path / str(count), count)
        ad = AD("dfm", folder, save_path=tmp_path, **SMALL).train()
        good = [ad.predict(draw_part(100 + n), save=False).raw_score for n in range(6)]
        held_out = ad.model.state()["held_out_scores"]
        assert np.median(held_out) < 2 * np.median(good)
        assert ad.predict(draw_part(300, defect=True), save=False).is_anomalous


@pytest.mark.slow
def test_images_added_to_few_leave_a_limit_that_finds_defects(tmp_path):
    folder = write_parts(tmp_path / "few", 12)
    ad = AD("dfm", folder, save_path=tmp_path, **SMALL).train()
    ad.add_images(write_parts(tmp_path / "more", 28, first=40))
    whole = AD("dfm", tmp_path / "few", save_path=tmp_path / "whole", **SMALL)
    whole.load_data([*folder.iterdir(), *(tmp_path / "more").iterdir()]).train()
    limits = [each.model.manifest.calibration.image.limit for each in (ad, whole)]
    assert limits[1] <= limits[0] * 1.05 and limits[0] < 2.5 * limits[1]
    assert ad.predict(draw_part(300, defect=True), save=False).is_anomalous

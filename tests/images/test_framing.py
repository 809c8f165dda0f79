"""What a model takes of a photograph with padding, and images of several views."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import draw_part, write_parts

from anomaly_ad import AD
from anomaly_ad.errors import OptionError
from anomaly_ad.images import Framing, Photograph, find_training_images, model_inputs
from anomaly_ad.images.framing import OUTSIDE
from anomaly_ad.inspection import Inspector
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


class Halves(Framing):
    """The left and the right half of a photograph as views of their own."""

    @property
    def n_views(self):
        return 2

    def take(self, image, image_size=None, name="The image", *, is_picture=False):
        middle = image.shape[1] // 2
        taken = [Framing.take(self, half) for half in (image[:, :middle], image[:, middle:])]
        views = np.concatenate([half.views for half in taken])
        return replace(taken[0], views=views, size=image.shape[:2])

    def merge(self, outputs):
        merged = {"score": outputs["score"].max()}
        if "anomaly_map" in outputs:
            merged["anomaly_map"] = np.concatenate(outputs["anomaly_map"], axis=1)
        return merged


@pytest.mark.slow
@pytest.mark.parametrize("method", ["patchcore", "dfm", "dfkde", "AD0"])
def test_images_of_several_views(method, tmp_path):
    """Scores, limits and digests are those of images, whatever the number of their views."""
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad.training import steps

    good = find_training_images(write_parts(tmp_path / "parts", 15))
    plan = Plan.from_options(method, {"img_size": (48, 48), "patch_size": 16})
    plan = replace(plan, framing=Halves(48, 48, 3))
    stored = steps.train(plan, good, tmp_path / "model", epochs=2)
    training = stored.manifest.training
    assert len(training["sets"][0]["digests"]) == 15
    assert stored.manifest.calibration.image.n_images == (3 if method == "AD0" else 15)
    stored = replace(stored, manifest=replace(stored.manifest, plan=plan))
    image = draw_part(99)
    found = (
        Inspector(stored, threshold=1).inspect(Photograph.of_array(image, plan.framing)).prediction
    )
    outputs = stored.engine.run(plan.framing.views(image))
    assert found.raw_score == pytest.approx(outputs["score"].max(), rel=1e-5)
    if "anomaly_map" in outputs:
        assert found.anomaly_map.shape == (48, 96)

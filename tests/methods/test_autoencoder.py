import cv2
import numpy as np
import pytest
from conftest import draw_part
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.errors import ModelError, OptionError
from anomaly_ad.images import Framing, ImageSet
from anomaly_ad.methods.autoencoder import Autoencoder, hide


@given(st.integers(4, 40), st.floats(0.05, 0.4), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_hidden_rectangles_are_no_larger_than_a_patch_and_cover_the_share(patch, share, seed):
    pictures = np.full((4, 48, 64, 1), 100, np.uint8)
    out = hide(pictures, patch, share, np.random.default_rng(seed))
    assert (pictures == 100).all()
    changed = (out != pictures)[..., 0]
    assert changed.mean() <= 2 * share + patch**2 / (48 * 64)


def test_a_single_hidden_rectangle_is_up_to_a_patch_wide():
    random = np.random.default_rng(0)
    sides = []
    for _ in range(200):
        out = hide(np.full((1, 64, 64, 1), 100, np.uint8), 20, 1e-4, random)
        ys, xs = np.nonzero(out[0, ..., 0] != 100)
        if len(ys):
            sides += [np.ptp(ys) + 1, np.ptp(xs) + 1]
    assert max(sides) == 20 and min(sides) == 6


def _score(detector, images):
    return np.asarray(detector.graph()(np.stack(images))["score"])


def _with_patch(patch_size, images):
    detector = Autoencoder(Framing(96, 96, 1), patch_size, 0)
    everything = ImageSet(images)
    fit = everything.subset(np.arange(20))
    validation = everything.subset(np.arange(20, 24))
    return detector.fit(fit, validation=validation, epochs=40, progress=lambda _: None)


@pytest.mark.slow
def test_patch_size_decides_which_defect_is_the_worse_one():
    """A small strong speck and a large faint stain: each patch size ranks them its own way."""
    framing = Framing(96, 96, 1)
    images = np.stack([framing.views(draw_part(seed, size=96)) for seed in range(24)])
    speck, stain = draw_part(100, size=96), draw_part(100, size=96).astype(int)
    speck[30:34, 56:60] = 255
    circle = cv2.circle(np.zeros((96, 96, 1), np.uint8), (60, 60), 26, 1, -1)
    stain = np.clip(stain + 22 * circle, 0, 255).astype(np.uint8)
    defects = [framing.views(speck)[0], framing.views(stain)[0]]
    small = _score(_with_patch(6, images), defects)
    large = _score(_with_patch(48, images), defects)
    assert small[0] > small[1]
    assert large[0] < large[1]


def test_state_of_another_network_is_refused():
    state = Autoencoder(Framing(64, 64, 1), 16, 0).state()
    with pytest.raises(ModelError, match="does not fit"):
        Autoencoder(Framing(64, 64, 3), 16, 0).restore(state)
    state["error_mean"][0] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        Autoencoder(Framing(64, 64, 1), 16, 0).restore(state)


@pytest.mark.parametrize(
    "option", [{"code_channels": 0}, {"code_channels": 2.5}, {"hidden_share": 0.9}]
)
def test_options_out_of_range(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        AD("AD1", **option)


@pytest.mark.slow
def test_a_narrower_code_rebuilds_less():
    images = ImageSet(np.stack([draw_part(seed)[None] for seed in range(24)]))
    errors = []
    for channels in (1, 16):
        detector = Autoencoder(Framing(64, 64, 3), 16, 0, code_channels=channels)
        detector.fit(images, validation=images, epochs=15, progress=lambda _: None)
        errors.append(detector.mean["error"].mean())
    assert errors[0] > errors[1]


@pytest.mark.slow
def test_without_hidden_patches_training_differs():
    images = ImageSet(np.stack([draw_part(seed)[None] for seed in range(16)]))
    means = []
    for share in (0.0, 0.4):
        detector = Autoencoder(Framing(64, 64, 3), 16, 0, hidden_share=share)
        detector.fit(images, validation=images, epochs=2, progress=lambda _: None)
        means.append(detector.mean["error"].mean())
    assert means[0] != means[1]

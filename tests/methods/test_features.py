"""Feature maps on disk: computed once, read in any order, by several names."""

import numpy as np
import openvino as ov
import openvino.opset13 as op
import pytest

from anomaly_ad.images import ImageSet
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.runtime.engine import Engine


@pytest.fixture(scope="module")
def engine():
    """Two maps of different grids: the image, and its means over fields of 4 x 4."""
    images = op.parameter([-1, 8, 8, 1], np.uint8, name="images")
    fine = op.convert(images, "f32")
    planes = op.transpose(fine, op.constant([0, 3, 1, 2]))
    pooled = op.avg_pool(planes, [4, 4], [0, 0], [0, 0], [4, 4], True)
    coarse = op.transpose(pooled, op.constant([0, 2, 3, 1]))
    for output, name in ((fine, "fine"), (coarse, "coarse")):
        output.output(0).set_names({name})
    return Engine(ov.Model([fine, coarse], [images], "toy"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_maps_of_different_grids(engine, dtype):
    images = np.random.default_rng(0).integers(0, 255, (300, 8, 8, 1), np.uint8)
    steps = []
    with FeatureSet.compute(
        engine, ImageSet(images[:, None]), steps.append, dtype=dtype
    ) as features:
        assert len(features) == len(steps) == 300
        for _ in range(2):  # re-iterable
            batches = list(features)
            assert [len(batch["fine"]) for batch in batches] == [128, 128, 44]
            fine = np.concatenate([batch["fine"] for batch in batches])
            np.testing.assert_array_equal(fine, images)
        some = features[np.array([7, 3])]
        assert some["coarse"].shape == (2, 2, 2, 1) and some["coarse"].dtype == dtype
        means = images[[7, 3]].reshape(2, 2, 4, 2, 4).mean(axis=(2, 4))
        np.testing.assert_allclose(some["coarse"][..., 0], means, rtol=2e-3)
        np.testing.assert_array_equal(features[slice(5, 7)]["fine"], images[5:7])
        files = [spool._file for spool in features._maps.values()]
        assert not any(file.closed for file in files)
    assert all(file.closed for file in files)


def test_of_arrays_in_memory():
    with FeatureSet({"features": np.arange(12.0).reshape(3, 2, 2)}) as features:  # two views each
        assert features[np.array([2])]["features"].tolist() == [[8, 9], [10, 11]]
        assert len(features) == 3


def test_images_of_which_some_tiles_are_left_out(engine):
    """As many views of each image as count; batches and images are those of the views."""
    views = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 1), np.uint8)
    rows = [np.array(some) for some in ([0, 1, 3], [4], [9, 10])]
    steps = []
    images = ImageSet(views, rows, n_views=4, per_epoch=7)
    with FeatureSet.compute(engine, images, steps.append) as features:
        assert len(features) == len(steps) == 3 and features.per_epoch == 7
        expected = [(0, 0, False), (0, 1, False), (0, 3, True), (2, 1, False), (2, 2, True)]
        assert [*features.tiles(np.array([0, 2]))] == expected
        np.testing.assert_array_equal(features[np.array([2, 1])]["fine"], views[[9, 10, 4]])
        together = np.concatenate([batch["fine"] for batch in features])
        np.testing.assert_array_equal(together, views[[0, 1, 3, 4, 9, 10]])


def test_an_epoch_shows_so_many_of_the_views_and_others_the_next_time():
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad.methods.gradient import Batches

    views = np.arange(40, dtype=np.uint8).repeat(64).reshape(40, 8, 8, 1)
    images = ImageSet(views[:, None]).as_views(per_epoch=10)
    batches = Batches(images, 4, seed=0)
    epochs = []
    for _ in range(2):
        assert len(batches) == 3
        found = np.concatenate([batches[n] for n in range(3)])[:, 0, 0, 0]
        assert len(found) == len(set(found.tolist())) == 10
        epochs.append(set(found.tolist()))
        batches.on_epoch_end()
    assert epochs[0] != epochs[1]
    assert len(Batches(images, 4)) == 10  # what is monitored is all

"""What trainings share is what each would have by itself."""

import numpy as np
import pytest
from conftest import draw_part, write_image

from anomaly_ad.images import Framing, ImageSet
from anomaly_ad.model import Plan
from anomaly_ad.training import Shared

pytest.importorskip("tensorflow")

from anomaly_ad.training.steps import build


def plan(method, framing, **options):
    made = Plan.from_options(method, {"img_size": framing.size, **options})
    return Plan(method, made.parameters, framing, 16, 0, "f32", 0.01)


def nothing(_):
    pass


FRAMINGS = [Framing(64, 64, 3), Framing.new(64, 96, 3, "pad")]


@pytest.mark.parametrize("framing", FRAMINGS, ids=["plain", "padded"])
def test_features_that_are_computed_together_are_those_of_each_alone(framing):
    images = ImageSet(np.stack([framing.views(draw_part(n)) for n in range(6)]))
    plans = [plan(method, framing) for method in ("padim", "dfkde", "patchcore")]
    built = [(each, build(each)) for each in plans]
    with Shared(built) as together, Shared() as alone:
        for each, detector in built:
            shared = together.features(detector, each, images, nothing)
            own = alone.features(detector, each, images, nothing)
            first, second = shared.set[slice(0, 6)], own.set[slice(0, 6)]
            assert first.keys() == second.keys()
            for name in first:
                np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=1e-5)
            views = images[slice(0, 2)]
            for name, values in shared.of(views).items():
                np.testing.assert_allclose(values, first[name][:2], rtol=1e-4, atol=1e-5)


def test_equal_graphs_are_run_once_and_others_again():
    framing = Framing(64, 64, 3)
    images = ImageSet(np.stack([framing.views(draw_part(n)) for n in range(4)]))
    plans = [
        plan("padim", framing),
        plan("padim", framing, prior=7.0),  # of the statistic, not of the features
        plan("padim", framing, layers=["stage4", "stage5"]),
    ]
    with Shared() as shared:
        sets = [
            shared.features(build(each), each, images, nothing).set[slice(0, 4)] for each in plans
        ]
        assert len(shared._features) == 2
    np.testing.assert_array_equal(sets[0]["features"], sets[1]["features"])
    assert not np.array_equal(sets[0]["features"], sets[2]["features"])


def test_images_are_decoded_once_for_each_framing_and_few_sets_are_kept(tmp_path, monkeypatch):
    files = [write_image(tmp_path / f"{n}.png", draw_part(n)) for n in range(3)]
    made = []
    decode = ImageSet.decode
    monkeypatch.setattr(
        ImageSet, "decode", lambda *given, **more: made.append(1) or decode(*given, **more)
    )
    with Shared() as shared:
        first = shared.images(files, Framing(32, 32, 3))
        assert shared.images(files, Framing(32, 32, 3)) is first and len(made) == 1
        for side in (40, 48, 56, 64):
            shared.images(files, Framing(side, side, 3))
        assert len(made) == 5
        assert shared.images(files, Framing(64, 64, 3))[slice(0, 1)].shape == (1, 64, 64, 3)
        shared.images(files, Framing(32, 32, 3))
        assert len(made) == 6  # it was given up for the others

"""Methods that register themselves, and models of methods that are not registered."""

import numpy as np
import pytest
from conftest import draw_part, write_parts

from anomaly_ad import AD, OptionError
from anomaly_ad.methods import Name, Number, Preset, register, registry
from anomaly_ad.model import Plan, load


@pytest.fixture
def clean():
    before = dict(registry.PRESETS), dict(registry._registered)
    yield
    for now, then in zip((registry.PRESETS, registry._registered), before, strict=True):
        now.clear()
        now.update(then)


@pytest.mark.parametrize(
    ("name", "preset", "message"),
    [
        ("padim", Preset("x"), "of this package"),
        ("a b", Preset("x"), "letters, digits"),
        (5, Preset("x"), "letters, digits"),
        ("own", "x", "with a Preset"),
        ("own", Preset("x", options=(Number("seed", 1.0, "x", 0, 2),)), "those of AD: seed"),
        ("own", Preset("x", options=(Name("a", "b", "x"), Name("a", "b", "x"))), "twice"),
        ("own", Preset("x", options=(Number("width", 5.0, "x", 0, 2),)), "from 0 to 2"),
    ],
)
def test_what_cannot_be_registered(name, preset, message, clean):
    with pytest.raises(OptionError, match=message):
        register(name, preset)(object)
    assert "own" not in registry.PRESETS


def test_options_are_checked_and_a_model_loads_whatever_became_of_them(clean):
    register("own", Preset("x", options=(Number("width", 1.0, "x", 0, 2),)))(object)
    plan = Plan.from_options("own", {"width": 2})
    with pytest.raises(OptionError, match="from 0 to 2"):
        AD("own", width=3)
    values = plan.to_dict()
    register("own", Preset("x", options=(Number("depth", 1.0, "x", 0, 2),)))(object)
    assert Plan.from_dict(values).parameters == {"width": 2}
    del registry.PRESETS["own"]
    assert Plan.from_dict(values).parameters == {"width": 2}


def _toy(name):
    """A method that scores brightness, whose input has another name or that takes no `inside`."""
    import keras
    from keras import ops

    from anomaly_ad.methods.base import StatisticalDetector, TrainingRecord

    class Count:
        count = 0

        def update(self, vectors, shares=None):
            self.count += len(vectors)
            return self

        def without(self, other):
            return self

    class Toy(StatisticalDetector):
        def __init__(self, framing, patch_size, seed):
            self.record = TrainingRecord()
            self.images = keras.Input(framing.shape, dtype="uint8", name=name)
            self.mean = ops.mean(ops.cast(self.images, "float32"), axis=(1, 2))
            self.statistic = self.new_statistic()

        def features(self):
            return keras.Model(self.images, {"features": self.mean})

        def new_statistic(self):
            return Count()

        def scorer(self, statistic):
            return lambda features: {"score": features["features"].mean(axis=-1)}

        def graph(self):
            return keras.Model(self.images, {"score": ops.mean(self.mean, axis=-1)})

        def state(self):
            return {"count": np.array(self.statistic.count)}

    return Toy


def test_a_graph_that_takes_something_else_replaces_no_model(clean, tmp_path):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    folder = write_parts(tmp_path / "parts", 12)
    options = {"img_size": (32, 32), "patch_size": 16, "save_path": tmp_path}
    register("own", Preset("brightness"))(_toy("images"))
    AD("own", folder, **options).train()
    before = load(tmp_path / "model").digest
    with pytest.raises(OptionError, match=r'fit="pad".*inside'):
        AD("own", folder, fit="pad", **options).train()
    register("own", Preset("brightness"))(_toy("picture"))
    with pytest.raises(OptionError, match="not a batch of images"):
        AD("own", folder, **options).train()
    del registry.PRESETS["own"], registry._registered["own"]
    ad = AD(tmp_path / "model")
    assert ad.model.digest == before and ad.predict(draw_part(0), save=False).error is None
    for call in (ad.train, lambda: ad.add_images(folder)):
        with pytest.raises(OptionError, match="must be registered"):
            call()


def test_frozen_features_that_take_something_else_are_refused(tmp_path):
    keras = pytest.importorskip("keras", reason="training needs the extra 'train'")
    from anomaly_ad.images import ImageSet
    from anomaly_ad.methods.gradient import GradientDetector

    class Own(GradientDetector):
        def frozen(self):
            images = keras.Input((32, 32, 3), dtype="uint8", name="images")
            return keras.Model(images, {"features": keras.ops.cast(images, "float32")})

    padded = ImageSet(np.zeros((4, 1, 32, 32, 4), np.uint8))
    with pytest.raises(
        OptionError, match=r"takes views of shape \(32, 32, 3\), where \(32, 32, 4\)"
    ):
        Own.fit(object.__new__(Own), padded, validation=padded, epochs=1, progress=print)

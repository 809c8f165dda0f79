import pickle
import struct

import numpy as np
import pytest
from conftest import draw_part, write_parts

pytest.importorskip("tensorflow", reason="backbones need the extra 'train'")

import keras

from anomaly_ad import AD, BackboneError, MissingExtraError, OptionError
from anomaly_ad.backbones import networks, weights
from anomaly_ad.backbones.efficientnet_lite import NAMES, efficientnet_lite
from anomaly_ad.images import Framing
from anomaly_ad.model.plan import Plan
from anomaly_ad.training.steps import build

TABBY, TIGER_CAT, EGYPTIAN_CAT = 281, 282, 285  # classes of ImageNet
# Logits of these classes, and of the best class that is no cat.
LOGITS = {
    "efficientnet_lite0": ((224, 224), [8.2287, 8.9026, 9.1275]),
    "efficientnet_lite1": ((240, 240), [7.1232, 7.3596, 8.5040]),
    "efficientnet_lite2": ((260, 260), [6.6478, 7.0861, 8.5676]),
}


@pytest.fixture(scope="module")
def cat():
    data = pytest.importorskip("skimage.data", reason="the photograph comes with scikit-image")
    return data.chelsea()[:, 75:375]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_cat_is_labelled_a_cat(name, cat):
    size, expected = LOGITS[name]
    network = efficientnet_lite(name, weights.WEIGHTS[name].read(), size)
    picture = Framing(*size, 3).views(cat)[0]
    logits = np.asarray(network(picture[None].astype(np.float32)))[0]
    assert logits.argmax() == EGYPTIAN_CAT
    assert set(np.argsort(logits)[-3:]) == {TABBY, TIGER_CAT, EGYPTIAN_CAT}
    # The crop of the photograph was the same; another way to resize may change the third digit.
    np.testing.assert_allclose(logits[[TABBY, TIGER_CAT, EGYPTIAN_CAT]], expected, atol=0.02)


def test_stages_halve_the_picture():
    network = efficientnet_lite(NAMES[0], weights.WEIGHTS[NAMES[0]].read(), (64, 96))
    shapes = [network.get_layer(f"stage{n}").output.shape[1:] for n in range(7)]
    assert shapes == [
        *((32, 48, 16), (16, 24, 24), (8, 12, 40), (4, 6, 80)),
        *((4, 6, 112), (2, 3, 192), (2, 3, 320)),
    ]


@pytest.mark.slow
def test_weights_that_do_not_fit():
    tensors = weights.WEIGHTS["efficientnet_lite0"].read()
    name = "_blocks.3._expand_conv.weight"
    for wrong, message in (
        ({name: tensors[name][:5]}, f"{name} should have the shape"),
        ({name: np.full_like(tensors[name], np.nan)}, "not finite"),
        ({"odd.weight": np.zeros(3)}, "no place for the weights odd.weight"),
    ):
        with pytest.raises(BackboneError, match=message):
            efficientnet_lite("efficientnet_lite0", tensors | wrong, (64, 64))
    del tensors[name]
    with pytest.raises(BackboneError, match="is missing"):
        efficientnet_lite("efficientnet_lite0", tensors, (64, 64))
    with pytest.raises(BackboneError, match="another network"):
        other = weights.WEIGHTS["efficientnet_lite2"].read()
        efficientnet_lite("efficientnet_lite0", other, (64, 64))


# --------------------------------------------------------------------------- the file of weights


def with_file(monkeypatch, tmp_path, content, sha256=None):
    """Weights whose package is a folder with this content."""
    import hashlib

    (tmp_path / "made_up").mkdir(exist_ok=True)
    (tmp_path / "made_up" / "__init__.py").write_text("raise AssertionError('it was imported')")
    (tmp_path / "made_up" / "w.pth").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return weights.WeightsFile("made-up", "made_up", "w.pth", digest)


def legacy(tensors, *, count=None):
    """A file as PyTorch before 1.6 wrote it, made without PyTorch."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value.pid if isinstance(value, Storage) else None

        def reducer_override(self, value):
            return (
                (Rebuild, (value.storage, 0, value.shape, value.strides))
                if isinstance(value, Tensor)
                else NotImplemented
            )

    import io

    out = io.BytesIO()
    for part in (weights._MAGIC, weights._PROTOCOL, {"little_endian": True}):
        pickle.dump(part, out, protocol=2)
    views = {}
    for key, array in enumerate(tensors.values()):
        storage = Storage(("storage", FloatStorage, str(key), "cpu", array.size, None))
        strides = tuple(stride // array.itemsize for stride in array.strides)
        views[list(tensors)[key]] = Tensor(storage, array.shape, strides)
    Pickler(out, protocol=2).dump(views)
    pickle.dump([str(key) for key in range(len(tensors))], out, protocol=2)
    for array in tensors.values():
        out.write(struct.pack("<q", array.size if count is None else count))
        out.write(array.astype("<f4").tobytes(order="A"))
    renamed = out.getvalue()
    for mine, theirs in (("Rebuild", "_rebuild_tensor_v2"), ("FloatStorage", "FloatStorage")):
        module = "torch._utils" if mine == "Rebuild" else "torch"
        renamed = renamed.replace(
            f"c{__name__}\n{mine}\n".encode(), f"c{module}\n{theirs}\n".encode()
        )
    return renamed


class Storage:
    def __init__(self, pid):
        self.pid = pid


class Tensor:
    def __init__(self, storage, shape, strides):
        self.storage, self.shape, self.strides = storage, shape, strides


def Rebuild(*_):  # noqa: N802 - stands for a name in the file
    raise AssertionError


class FloatStorage:
    pass


def test_tensors_are_read_in_their_own_order_of_axes(monkeypatch, tmp_path):
    random = np.random.default_rng(0)
    plain = random.random((3, 4)).astype(np.float32)
    turned = np.asfortranarray(random.random((5, 2)).astype(np.float32))
    content = legacy({"plain": plain, "turned": turned})
    out = with_file(monkeypatch, tmp_path, content).read()
    np.testing.assert_array_equal(out["plain"], plain)
    np.testing.assert_array_equal(out["turned"], turned)


def test_a_pickle_that_would_run_something_is_refused(monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            import os

            return os.system, ("touch run",)

    header = b"".join(
        pickle.dumps(part, 2)
        for part in (weights._MAGIC, weights._PROTOCOL, {"little_endian": True})
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError, match=r"names (posix|nt)\.system"):
        with_file(monkeypatch, tmp_path, header + pickle.dumps(Evil(), 2)).read()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1]) * 3, pickle.dumps(7) * 4])
def test_files_that_hold_no_tensors(monkeypatch, tmp_path, content):
    with pytest.raises(BackboneError):
        with_file(monkeypatch, tmp_path, content).read()


def test_files_that_are_cut_off_or_lie_about_their_length(monkeypatch, tmp_path):
    content = legacy({"a": np.ones((3, 4), np.float32)})
    for wrong in (content[:-5], legacy({"a": np.ones((3, 4), np.float32)}, count=7)):
        with pytest.raises(BackboneError):
            with_file(monkeypatch, tmp_path, wrong).read()


def test_a_changed_file_is_refused_before_it_is_unpickled(monkeypatch, tmp_path):
    with pytest.raises(BackboneError, match=r"sha256 .*force-reinstall --no-deps made-up"):
        with_file(monkeypatch, tmp_path, b"evil", sha256="0" * 64).read()


def test_a_missing_package_names_the_command():
    missing = weights.WeightsFile("not-there", "not_there_at_all", "w.pth", "0")
    with pytest.raises(MissingExtraError, match=r"not-there.*anomaly-ad\[train\]"):
        missing.read()


def test_a_missing_file_in_the_package(monkeypatch, tmp_path):
    file = with_file(monkeypatch, tmp_path, b"x")
    (tmp_path / "made_up" / "w.pth").unlink()
    with pytest.raises(BackboneError, match="cannot be read"):
        file.read()


# -------------------------------------------------------------------- the choice of a backbone


def padim(framing=Framing(64, 64, 3), **options):  # noqa: B008 - a frozen value
    preset = Plan.from_options("padim", {})
    network = options.pop("network", None)
    parameters = {**preset.parameters, **options}
    return build(Plan("padim", parameters, framing, 16, 0, "f32", 0.01), network)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "efficientnet_lite9"}, "Valid names: efficientnet_lite0"),
        ({"backbone": "os.system"}, "There is no backbone"),
        ({"backbone": "own:abc"}, r"Pass it: AD\("),
        ({"layers": ["stage7"]}, r"no layer 'stage7'.*stage4"),
        ({"layers": ["logits"]}, "a feature map"),
        ({"layers": "stage1"}, "layers is a list"),
        ({"layers": [1]}, "layers is a list"),
        ({"layers": 5}, "layers is a list"),
        ({"channels": 0}, "channels is a whole number"),
        ({"channels": 2.5}, "channels is a whole number"),
        ({"regularization": 0}, "regularization is a number from"),
        ({"regularization": float("nan")}, "regularization is a number from"),
        ({"prior": -1}, "prior is a number of images from 0"),
        ({"prior": "20"}, "prior is a number of images from 0"),
        ({"regularization": 10**400}, "regularization is a number from"),
        ({"blur": -1}, "blur is a number of pixels from 0 to 100"),
        ({"framing": Framing(16, 64, 3)}, "grid of 1x4 features"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises((BackboneError, OptionError), match=message):
        padim(**options)


def test_wrong_backbones_are_said_before_images_are_read(tmp_path):
    folder = write_parts(tmp_path / "parts", 12)
    (folder / "broken.png").touch()
    with pytest.raises(BackboneError, match="no layer"):
        AD("padim", folder, save_path=tmp_path, layers=["stage9"]).train()
    assert not (tmp_path / "model").exists()


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    def fail(**_):
        raise OSError("Name or service not known")

    fail.__module__ = keras.applications.MobileNetV2.__module__
    monkeypatch.setattr(keras.applications, "MobileNetV2", fail)
    with pytest.raises(BackboneError, match=r"Without access to the internet use .*lite0"):
        padim(backbone="MobileNetV2", layers=["block_3_expand"])


@pytest.mark.slow
def test_a_model_of_keras_applications_with_named_layers(monkeypatch):
    real = keras.applications.MobileNetV2

    def without_weights(**options):
        return real(**options | {"weights": None})

    without_weights.__module__ = real.__module__
    monkeypatch.setattr(keras.applications, "MobileNetV2", without_weights)
    layers = ["block_2_add", "block_5_add"]
    detector = padim(Framing(96, 96, 3), backbone="MobileNetV2", layers=layers)
    assert detector.grid == (12, 12)
    with pytest.raises(BackboneError, match=r"no layer 'x'.*block_5_add|no layer 'x'.*out_relu"):
        padim(Framing(96, 96, 3), backbone="MobileNetV2", layers=["x"])
    # what the user's images go through is the family's own preprocessing: 0..255 -> -1..1
    images = np.stack([draw_part(0, size=96)])
    bare = real(include_top=False, weights=None, input_shape=(96, 96, 3))
    assert bare.get_layer("block_2_add").output.shape[1:3] == (24, 24)
    assert np.isfinite(detector.features()(images)["features"]).all()


def own_network(seed):
    pictures = x = keras.Input((None, None, 3))
    for n in range(2):
        initializer = keras.initializers.HeNormal(seed=seed + n)
        x = keras.layers.Conv2D(
            8, 3, 4, "same", activation="relu", kernel_initializer=initializer, name=f"conv{n}"
        )(x / 64.0 if n == 0 else x)
    return keras.Model(pictures, x, name="mine")


def test_a_network_of_ones_own(tmp_path):
    folder = write_parts(tmp_path / "parts", 14)
    files = sorted(folder.iterdir())
    options = {"img_size": (64, 64), "patch_size": 16, "layers": ["conv0", "conv1"]}
    ad = AD("padim", files[:12], save_path=tmp_path, backbone=own_network(0), **options).train()
    score = ad.predict(files[0], save=False).raw_score
    model = tmp_path / "model"
    assert AD(model).predict(files[0], save=False).raw_score == pytest.approx(score, rel=1e-5)
    with pytest.raises(BackboneError, match="Pass it"):
        AD(model).add_images(files[12:])
    with pytest.raises(OptionError, match="not trained on this backbone"):
        AD(model, backbone=own_network(7))
    again = AD(model, backbone=own_network(0)).add_images(files[12:])
    assert again.model.manifest.training["n_fit"] == 14
    with pytest.raises(OptionError, match="a name or a Keras model"):
        AD("padim", backbone=7)


def test_networks_whose_layers_cannot_be_reached():
    class Subclassed(keras.Model):
        def call(self, pictures):
            return pictures

    for network in (Subclassed(), keras.layers.Dense(2)):
        with pytest.raises(BackboneError, match=r"functional keras\.Model"):
            padim(network=network, layers=["conv0"])


@pytest.mark.slow
def test_gray_images_are_given_as_three_equal_channels():
    features = [padim(Framing(64, 64, channels)).features() for channels in (1, 3)]
    gray = draw_part(0)[..., :1]
    first = features[0](gray[None])["features"]
    second = features[1](np.repeat(gray, 3, axis=2)[None])["features"]
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_own_name_tells_weights_apart():
    names = [networks.own_name(own_network(seed)) for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]

"""The variational autoencoder, and LAKE, which adds a density."""

import numpy as np
import pytest
from conftest import draw_part, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

import keras
import tensorflow as tf

from anomaly_ad import AD
from anomaly_ad.errors import ModelError, OptionError
from anomaly_ad.images import Framing, ImageSet
from anomaly_ad.layers.sampling import GaussianSample
from anomaly_ad.methods import lake, registry
from anomaly_ad.methods.autoencoder import Autoencoder
from anomaly_ad.methods.lake import LAKE
from anomaly_ad.methods.vae import VAE

SPEC = Framing(64, 64, 3)
PARTS = ImageSet(np.stack([draw_part(seed)[None] for seed in range(24)]))


def made(cls, seed=0, **options):
    name = {VAE: "vae", LAKE: "lake"}[cls]
    return cls(SPEC, 16, seed, **{**registry.preset(name).parameters, **options})


def fitted(cls, epochs=6, **options):
    fit, validation = PARTS.subset(np.arange(18)), PARTS.subset(np.arange(18, 24))
    detector = made(cls, **options)
    return detector.fit(fit, validation=validation, epochs=epochs, progress=lambda _: None)


@pytest.fixture(scope="module")
def trained_lake():
    return fitted(LAKE)


def pictures(count=4):
    return PARTS[slice(0, count)].astype(np.float32) / 255


@pytest.mark.slow
def test_a_sample_has_the_mean_and_the_deviation_and_inference_the_mean():
    layer = GaussianSample(3)
    mean, deviation = np.full((1000, 4), 5, np.float32), np.full((1000, 4), 3, np.float32)
    drawn = np.asarray(layer(mean, deviation, training=True))
    assert abs(drawn.mean() - 5) < 0.2 and abs(drawn.std() - 3) < 0.2
    assert (drawn != np.asarray(layer(mean, deviation, training=True))).any()
    np.testing.assert_array_equal(layer(mean, deviation, training=False), mean)
    np.testing.assert_array_equal(layer(mean, deviation), mean)


@pytest.mark.slow
def test_the_loss_has_the_divergence_from_a_standard_gaussian():
    """Against its definition, integrated over a fine grid."""
    plain, weighted = (made(VAE, beta=beta) for beta in (0.0, 0.5))
    images = pictures()
    found = {name: np.asarray(value) for name, value in plain.network(images).items()}
    found["mean"] = np.random.default_rng(0).normal(0, 2, found["mean"].shape).astype(np.float32)
    found["log_deviation"] = np.full(found["mean"].shape, 0.35, np.float32)
    found["deviation"] = np.exp(found["log_deviation"])
    difference = float(weighted.loss(images, found)) - float(plain.loss(images, found))
    axis = np.linspace(-30, 30, 20_001)
    deviation = np.exp(0.35)
    total = 0.0
    for mean in found["mean"].ravel():
        z = (axis - mean) / deviation
        density = np.exp(-z * z / 2) / deviation / np.sqrt(2 * np.pi)
        log_ratio = axis * axis / 2 - z * z / 2 - np.log(deviation)
        total += (density * log_ratio).sum() * (axis[1] - axis[0])
    assert difference == pytest.approx(0.5 * total / found["mean"].size, rel=1e-3)


@pytest.mark.slow
def test_without_its_own_terms_the_loss_is_the_autoencoders():
    images = pictures()
    found = made(LAKE, beta=0, layer_weight=0).network(images)
    expected = float(Autoencoder.loss(made(VAE), images, found))
    assert float(made(VAE, beta=0).loss(images, found)) == pytest.approx(expected)
    assert float(made(LAKE, beta=0, layer_weight=0).loss(images, found)) == pytest.approx(expected)


@pytest.mark.slow
def test_a_larger_beta_keeps_less_in_the_code():
    spreads = []
    for beta in (0.0, 10.0):
        network = fitted(VAE, epochs=20, beta=beta).network
        spreads.append(np.asarray(network(pictures(24), training=False)["mean"]).std())
    assert spreads[1] < spreads[0] / 2


@pytest.mark.slow
def test_training_draws_codes_and_inference_does_not():
    network, images = made(LAKE).network, pictures()
    first, second = (network(images, training=True)["code"] for _ in range(2))
    assert (np.asarray(first) != np.asarray(second)).any()
    found = network(images, training=False)
    np.testing.assert_array_equal(found["code"], found["mean"])


@pytest.mark.slow
def test_a_layer_weight_brings_inner_layers_together():
    distances = []
    for weight in (0.0, 10.0):
        found = fitted(LAKE, epochs=40, layer_weight=weight).network(pictures(24), training=False)
        before, behind = np.asarray(found["encoded_8"]), np.asarray(found["decoded_8"])
        distances.append(np.square(before - behind).mean() / before.var())
    assert distances[1] < 0.75 * distances[0]


@pytest.mark.slow
def test_the_encoder_is_a_target_that_does_not_move():
    """With all that the decoder makes held fast, the loss has no gradient."""
    detector, images = made(LAKE), pictures()
    found = {name: np.asarray(value) for name, value in detector.network(images).items()}
    with tf.GradientTape() as tape:
        loss = detector.loss(tf.constant(images), found)
    weights = [weight.value for weight in detector.network.trainable_variables]
    assert all(gradient is None for gradient in tape.gradient(loss, weights))


@pytest.mark.slow
def test_errors_of_inner_layers_are_smoothed_over_the_patch():
    spread = {}
    for patch_size in (8, 64):
        parameters = registry.preset("lake").parameters
        detector = LAKE(SPEC, patch_size, 0, **parameters)
        found = detector.network(pictures(), training=False)
        spread[patch_size] = {
            name: np.asarray(error).std()
            for name, error in detector.errors(pictures(), found).items()
        }
    assert len(spread[8]) == 3
    assert all(spread[64][name] < spread[8][name] for name in spread[8])


@pytest.mark.slow
def test_the_score_is_the_density_of_code_and_errors(trained_lake):
    stats = pytest.importorskip("scipy.stats", reason="needs the extra 'eval'")
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs the extra 'eval'")
    measured = trained_lake.measured()
    outputs = {
        "code": measured.found["mean"],
        **{f"error {name}": error for name, error in measured.errors.items()},
        **{f"excess {name}": excess for name, excess in measured.excess.items()},
    }
    model = keras.Model(measured.inputs, outputs)

    def parts(images):
        found = {name: np.asarray(value) for name, value in model(images).items()}
        names = ("error", "layer_8", "layer_16")
        columns = [found[f"excess {name}"].max(axis=(1, 2)) ** 2 for name in names]
        columns += [found[f"error {name}"].mean(axis=(1, 2, 3)) for name in names]
        code = found["code"].reshape(len(images), -1)  # 4x4 cells are the coarse grid itself
        return code.astype(np.float64), np.stack(columns, axis=1).astype(np.float64)

    codes, _ = parts(PARTS[slice(0, 24)])
    pca = decomposition.PCA(8, svd_solver="full").fit(codes)

    def vectors(images):
        code, errors = parts(images)
        return np.concatenate([pca.transform(code), errors], axis=1)

    others = np.stack([draw_part(100 + n, defect=n == 0) for n in range(3)])
    density = stats.gaussian_kde(vectors(PARTS[slice(0, 24)]).T)
    out = trained_lake.graph()(others)
    np.testing.assert_allclose(out["score"], -density.logpdf(vectors(others).T), rtol=1e-3)
    np.testing.assert_allclose(
        np.asarray(out["anomaly_map"]), np.asarray(model(others)["excess error"]), rtol=1e-5
    )


@pytest.mark.slow
def test_of_many_images_a_sample_is_kept(monkeypatch):
    monkeypatch.setattr(lake, "_IMAGES", 20)
    detector = fitted(LAKE, epochs=1)
    assert detector.pool.count == 24 and len(detector.pool.vectors) == 20
    assert np.isfinite(detector.graph()(PARTS[slice(0, 2)])["score"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "nan", "short"])
def test_a_state_of_something_else_is_refused(trained_lake, damage):
    state = dict(trained_lake.state())
    if damage == "missing":
        del state["density_vectors"]
    elif damage == "nan":
        state["density_vectors"] = state["density_vectors"] * np.float32("nan")
    else:
        state["density_vectors"] = state["density_vectors"][:, 1:]
    with pytest.raises(ModelError, match="state"):
        made(LAKE).restore(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option"),
    [("vae", {"beta": -1}), ("vae", {"beta": "much"}), ("lake", {"layer_weight": 11})],
)
def test_options_out_of_range(name, option):
    with pytest.raises(OptionError, match=f"{next(iter(option))} is a number"):
        AD(name, **option)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "lake"])
def test_training_goes_on(name, tmp_path):
    folder = write_parts(tmp_path / "parts", 20)
    options = {"img_size": (64, 64), "patch_size": 16}
    digest = AD(name, folder, save_path=tmp_path, **options).train(2).model.digest
    again = AD(tmp_path / "model", folder).train(1)
    assert again.model.manifest.training["continued_from"] == digest
    assert np.isfinite(again.predict(folder / "000.png", save=False).raw_score)

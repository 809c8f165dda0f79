"""Seconds of a training epoch compared with those of a plain autoencoder, within one run.

    python benchmarks/epoch.py
    python benchmarks/epoch.py $ANOMALY_AD_DATA/bottle

Both learn from the good images of a data folder (default: the sample set, rendered), in colour. The
plain network: four convolutions of stride 2 with 16, 32, 64, 64 channels and their mirror, 192x192,
SSIM + L1 (TensorFlow's own SSIM), batches of 8, measured before and after ours. Ours: AD0 at its
defaults, corrupting the images and validation included.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from anomaly_ad.data.sample import render_sample
from anomaly_ad.images import ImageSet, find_training_images, split
from anomaly_ad.model.plan import Plan
from anomaly_ad.training.learning import part_sizes
from anomaly_ad.training.steps import build

EPOCHS = 6
SIDE = 192  # pixels


def plain_network() -> keras.Model:
    widths = (16, 32, 64, 64)
    pictures = x = keras.Input((SIDE, SIDE, 3))
    for width in widths:
        x = kl.Conv2D(width, 3, 2, padding="same", activation="relu")(x)
    for width in reversed(widths[:-1]):
        x = kl.Conv2DTranspose(width, 3, 2, padding="same", activation="relu")(x)
    x = kl.Conv2DTranspose(3, 3, 2, padding="same", activation="sigmoid")(x)
    return keras.Model(pictures, x)


def plain_loss(pictures: tf.Tensor, rebuilt: tf.Tensor) -> tf.Tensor:
    similarity = tf.reduce_mean(tf.image.ssim(pictures, rebuilt, 1.0))
    return 1 - similarity + tf.reduce_mean(tf.abs(pictures - rebuilt))


class Epochs(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def start(self) -> None:
        """An epoch begins now."""
        self._last = time.perf_counter()

    def end(self, note: str) -> None:
        """It has ended, and the next begins."""
        self.seconds.append(time.perf_counter() - self._last)
        self.start()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """As Keras calls it."""
        self.start()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """As Keras calls it."""
        self.end("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="default: the sample set, rendered")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = options.data or render_sample(Path(name, "sample"), progress=True)
        paths = find_training_images(data).paths
        plan = Plan.from_options("AD0", {})
        detector = build(plan)
        with ImageSet.decode(paths, plan.framing) as images:
            parts = split(len(images), part_sizes(len(images)), plan.seed)
            fit, validation = (images.subset(part) for part in parts[:2])
            stop = np.linspace(0, plan.framing.height - 1, SIDE).round().astype(int)
            pictures = np.concatenate(list(fit))[:, stop][:, :, stop].astype(np.float32) / 255
            network = plain_network()
            network.compile(keras.optimizers.Adam(1e-3), loss=plain_loss)
            plain = Epochs()
            ours = Epochs()
            once = {"batch_size": 8, "epochs": EPOCHS, "verbose": 0, "callbacks": [plain]}
            network.fit(pictures, pictures, **once)
            ours.start()
            detector.fit(fit, validation=validation, epochs=2 * EPOCHS, progress=ours.end)
            network.fit(pictures, pictures, **once)
            count = len(fit)
    first, second = statistics.median(ours.seconds[1:]), statistics.median(plain.seconds[1:])
    print(f"\n{count} images, {2 * EPOCHS} epochs of each; the first, which compiles, left out")
    print(f"AD0, 200x200        {first:.2f} s per epoch")
    print(f"plain, {SIDE}x{SIDE}      {second:.2f} s per epoch")
    print(f"ratio               {first / second:.2f}   (at most 1.5)")


if __name__ == "__main__":
    main()

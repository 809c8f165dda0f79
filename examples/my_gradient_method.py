"""A method of one's own that is trained by gradient: an autoencoder of pretrained features.

    python examples/my_gradient_method.py Dataset/Washer

Each cell's features are squeezed through a narrow layer and rebuilt; what cannot be rebuilt is odd.
The features are computed once, on disk, and read in every epoch. docs/methods.md explains it.
"""

import sys

import keras
from keras import ops

from anomaly_ad import AD
from anomaly_ad.backbones.networks import feature_maps, on_the_coarsest_grid
from anomaly_ad.methods import Name, Names, Number, Preset, WholeNumber, register
from anomaly_ad.methods.base import TrainingRecord
from anomaly_ad.methods.gradient import GradientDetector
from anomaly_ad.methods.heads import MapHead, highest, joined, model_input


@register(
    "feature_autoencoder",
    Preset(
        "Autoencoder of pretrained features, cell by cell",
        epochs=60,
        options=(
            Name("backbone", "efficientnet_lite0", "the pretrained network, by its name"),
            Names("layers", ["stage2", "stage4"], "layers of the backbone"),
            Number("blur", 4.0, "standard deviation of the map's smoothing in pixels", 0, 100),
            WholeNumber("width", 24, "of the narrow layer", 1, 512),
        ),
    ),
)
class FeatureAutoencoder(GradientDetector):
    """The squared error of each cell's rebuilt features, of which no cell knows another."""

    def __init__(self, framing, patch_size, seed, *, backbone, layers, blur, width):
        self.seed = seed
        self.record = TrainingRecord()
        images, inside = model_input(framing)
        maps = feature_maps(images, framing, backbone, layers)
        found = keras.layers.LayerNormalization(center=False, scale=False)(
            on_the_coarsest_grid(maps)
        )
        outputs = {"features": found} if inside is None else {"features": found, "inside": inside}
        self._frozen = keras.Model(joined(images, inside), outputs)
        self.head = MapHead(framing.size, tuple(found.shape[1:3]), blur)
        cells = keras.Input(found.shape[1:])
        sizes = [width * 4, width, width * 4, found.shape[-1]]
        x = cells
        for n, size in enumerate(sizes):
            start = keras.initializers.GlorotUniform(seed=seed * len(sizes) + n)
            last = n == len(sizes) - 1
            x = keras.layers.Dense(size, None if last else "gelu", kernel_initializer=start)(x)
        self.networks = {"autoencoder": keras.Model(cells, x)}

    def frozen(self):
        return self._frozen

    def errors(self, features, training):
        rebuilt = self.networks["autoencoder"](features, training=training)
        return ops.mean(ops.square(features - rebuilt), axis=-1)

    def batch_loss(self, x, y, *, training):
        return ops.mean(self.errors(x["features"], training))

    def outputs(self, features):
        cells = self.errors(features["features"], False)
        anomaly_map = self.head(ops, cells, features.get("inside"))
        return {"anomaly_map": anomaly_map, "score": highest(ops, anomaly_map)}


if __name__ == "__main__":
    AD("feature_autoencoder", sys.argv[1], name="features").train().evaluate(sys.argv[1])

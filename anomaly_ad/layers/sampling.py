"""Random codes in training, their mean at inference."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("anomaly_ad")
class GaussianSample(keras.layers.Layer):
    """Draw from a Gaussian in training: mean + deviation * noise.

    At inference it is the mean, so that the same image always gives the same.

    Parameters
    ----------
    seed : int
        Of the noise.

    References
    ----------
    Kingma, Welling 2014, Auto-Encoding Variational Bayes, arXiv 1312.6114, section 2.4.
    """

    def __init__(self, seed: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.noise = keras.random.SeedGenerator(seed)

    def call(
        self,
        mean: keras.KerasTensor,
        deviation: keras.KerasTensor,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Tensors of one shape -> the same shape."""
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), seed=self.noise)
        return mean + deviation * noise

    def compute_output_shape(self, mean_shape: tuple, deviation_shape: tuple) -> tuple:
        """Shape of the result."""
        return mean_shape

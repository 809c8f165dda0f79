"""The variational autoencoder: a code that is a distribution, drawn towards a standard Gaussian.

The patch autoencoder with another code: each of its values is a Gaussian whose mean and variance
the network gives. Training draws the code from it and pays for its distance from a standard
Gaussian, so the code keeps no more of an image than rebuilding good ones needs. Inference takes the
mean, so the same image always gets the same score. The map is the autoencoder's.

References
----------
Kingma, Welling 2014, Auto-Encoding Variational Bayes, arXiv 1312.6114, equations 7 and 10, and
appendix B for the divergence. Higgins et al. 2017, beta-VAE: Learning Basic Visual Concepts with a
Constrained Variational Framework, ICLR, section 2 (beta) and equation 4. Deviations: the
reconstruction error is the autoencoder's (absolute difference and structural dissimilarity) instead
of a log likelihood, the code is a map, and both terms are means, so beta is the normalised one of
that paper, beta * M / N for a code of M and an image of N values.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..images import Framing
from ..layers.sampling import GaussianSample
from .autoencoder import Autoencoder, Conv, Tensors


class VAE(Autoencoder):
    """Variational patch autoencoder.

    Parameters
    ----------
    framing, patch_size, seed, code_channels, hidden_share
        See `Autoencoder`.
    beta : float
        Weight of the code's divergence from a standard Gaussian, the mean over its values, relative
        to the reconstruction error, the mean over the pixels. More makes the code simpler: good
        images are rebuilt less exactly, defects are copied less. 0 to 10.
    """

    def __init__(
        self, framing: Framing, patch_size: int, seed: int, *, beta: float, **parameters: Any
    ) -> None:
        self.beta = beta
        super().__init__(framing, patch_size, seed, **parameters)

    def squeeze(self, x: keras.KerasTensor, conv: Conv) -> Tensors:
        """Mean and deviation of the code, and the code that is drawn."""
        mean = conv(x, self.code_channels, 1)
        # Within what float32 can hold, however training goes. From here on no tensor is used more
        # than twice: TensorFlow adds three gradients in the order in which they come, and the same
        # seed would not give the same network.
        log_deviation = ops.clip(conv(x, self.code_channels, 1), -10, 10)
        deviation = ops.exp(log_deviation)
        code = GaussianSample(self.seed)(mean, deviation)
        found = {"mean": mean, "deviation": deviation, "log_deviation": log_deviation}
        return {**found, "code": code}

    def loss(self, pictures: keras.KerasTensor, found: Tensors) -> keras.KerasTensor:
        """Reconstruction error, and the divergence of the code from a standard Gaussian.

        (mean² + deviation² - 1) / 2 - log deviation for each value of the code.
        """
        squares = ops.square(found["mean"]) + ops.square(found["deviation"])
        divergence = (squares - 1) / 2 - found["log_deviation"]
        return super().loss(pictures, found) + self.beta * ops.mean(divergence)

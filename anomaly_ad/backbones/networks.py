"""Build a backbone: uint8 images in, the feature maps of the chosen layers out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import keras
from keras import ops

from ..errors import BackboneError, OptionError
from ..images import Framing
from .efficientnet_lite import NAMES, efficientnet_lite
from .weights import WEIGHTS, WeightsFile


def feature_maps(
    images: keras.KerasTensor,
    framing: Framing,
    backbone: str | keras.Model,
    layers: Sequence[str],
) -> list[keras.KerasTensor]:
    """Put a backbone behind an input.

    Parameters
    ----------
    images : tensor of uint8, shape (B, height, width, 1 or 3)
        Gray is given to the backbone as three equal channels.
    framing : Framing
        Of the images.
    backbone : str or keras.Model
        A name: efficientnet_lite0, -1, -2, or a model of `keras.applications`. Or a model of one's
        own that takes float32 RGB images in 0..255, shape (B, H, W, 3).
    layers : sequence of str
        Names of layers with outputs of shape (B, h, w, c).

    Returns
    -------
    list of tensor of float32, shape (B, h, w, c)

    Raises
    ------
    OptionError
        `layers` is not a list of names.
    BackboneError
        There is no such backbone or layer, the weights cannot be had, or the images are too small.
    MissingExtraError
        The package with the weights is not installed.
    """
    network = _network(backbone, framing) if isinstance(backbone, str) else backbone
    if not isinstance(network, keras.Model) or not hasattr(network, "inputs"):
        raise BackboneError(
            "A backbone of your own is a functional keras.Model, whose layers can be reached by "
            f"name. Received: {type(network).__name__}."
        )
    is_list = isinstance(layers, (list, tuple)) and len(layers) > 0
    if not is_list or not all(isinstance(name, str) for name in layers):
        raise OptionError(f"layers is a list of names of layers. Received: {layers!r}.")
    outputs = [_layer(network, name).output for name in layers]
    pictures = ops.cast(images, "float32")
    if framing.channels == 1:
        pictures = ops.concatenate([pictures] * 3, axis=-1)
    try:
        maps = keras.Model(network.inputs, outputs, trainable=False)(pictures)
    except (ValueError, TypeError) as error:
        raise BackboneError(
            f"The backbone {_name(backbone)} does not take images of {framing.height}x"
            f"{framing.width} pixels: {error}. Choose another img_size."
        ) from error
    maps = list(maps) if isinstance(maps, (list, tuple)) else [maps]
    for name, features in zip(layers, maps, strict=True):
        if len(features.shape) != 4 or None in features.shape[1:]:
            raise BackboneError(
                f"The layer {name!r} of {_name(backbone)} has an output of shape {features.shape}; "
                "a feature map (B, h, w, c) is needed. Choose another layer."
            )
    return maps


def strongest_features(framing: Framing, backbone: str, layers: Sequence[str]) -> keras.Model:
    """A backbone as a graph that sums an image up: the largest value of each channel.

    Parameters and errors as in `feature_maps`.

    Returns
    -------
    keras.Model
        uint8 images (B, height, width, channels) -> {"features": float32 (B, C)}; C is the sum of
        the layers' channels.
    """
    images = keras.Input(framing.shape, dtype="uint8", name="images")
    maps = feature_maps(images, framing, backbone, layers)
    strongest = [ops.max(features, axis=(1, 2)) for features in maps]
    return keras.Model(images, {"features": ops.concatenate(strongest, axis=-1)})


def on_the_coarsest_grid(
    maps: Sequence[keras.KerasTensor],
    *,
    at_least: tuple[int, int] = (1, 1),
    pooled: bool = False,
) -> keras.KerasTensor:
    """Average finer feature maps down to the grid of the coarsest and put all channels together.

    Parameters
    ----------
    maps : sequence of tensor of float32, shape (B, h, w, c)
    at_least : (int, int)
        Cells along height and width. Maps with fewer are enlarged, bilinearly, to the coarsest grid
        that has so many, or to the finest there is.
    pooled : bool
        Average the finer maps over 3 x 3 of their own cells first: a cell then knows a little of
        its surroundings. Cells of the coarsest map cover more than that already.

    Returns
    -------
    tensor of float32, shape (B, h, w, C)
        Of the coarsest h, w; C is the sum of all channels.
    """
    grids = sorted(features.shape[1:3] for features in maps)
    fine = [grid for grid in grids if grid[0] >= at_least[0] and grid[1] >= at_least[1]]
    height, width = fine[0] if fine else grids[-1]
    averaged = []
    for features in maps:
        size = features.shape[1:3]
        if size != (height, width) and size[0] <= height and size[1] <= width:
            features = ops.image.resize(features, (height, width), interpolation="bilinear")
        step = (-(-features.shape[1] // height), -(-features.shape[2] // width))
        if step != (1, 1):
            if pooled:
                features = ops.average_pool(features, 3, 1, padding="same")
            features = ops.average_pool(features, step, step, padding="same")
        if features.shape[1:3] != (height, width):
            raise BackboneError(
                "The feature maps of the chosen layers do not lie on one grid: "
                f"{', '.join('x'.join(map(str, m.shape[1:3])) for m in maps)}. Choose layers whose "
                "sizes are multiples of each other."
            )
        averaged.append(features)
    return averaged[0] if len(averaged) == 1 else ops.concatenate(averaged, axis=-1)


def own_name(network: keras.Model) -> str:
    """The name that a manifest holds for a model of one's own: its weights' hash tells it apart."""
    digest = hashlib.sha256()
    for weights in network.get_weights():
        digest.update(repr(weights.shape).encode() + weights.tobytes())
    return f"own:{digest.hexdigest()}"


def _name(backbone: str | keras.Model) -> str:
    return backbone if isinstance(backbone, str) else backbone.name


def _network(name: str, framing: Framing) -> keras.Model:
    if name in NAMES:
        return _lite(name, WEIGHTS[name], framing.size)
    if name.startswith("own:"):
        raise BackboneError(
            "This model was trained on a backbone of your own, which is not part of the model "
            'directory. Pass it: AD("Models/model", backbone=network).'
        )
    applications = {
        entry: builder
        for entry, builder in vars(keras.applications).items()
        if callable(builder) and entry[0].isupper()
    }
    if name not in applications:
        raise BackboneError(
            f"There is no backbone {name!r}. Valid names: {', '.join(NAMES)}, and those of "
            f"keras.applications: {', '.join(sorted(applications))}; or hand over a Keras model."
        )
    builder = applications[name]
    # Each family's preprocessing stands in the module that its builders come from.
    module = getattr(keras.applications, builder.__module__.rpartition(".")[2])
    try:
        network = builder(include_top=False, weights="imagenet", input_shape=(*framing.size, 3))
    except ValueError as error:
        raise BackboneError(
            f"The backbone {name} cannot be built for images of {framing.height}x{framing.width} "
            f"pixels: {error}"
        ) from error
    except Exception as error:  # the download: whatever went wrong, the way out is the same
        raise BackboneError(
            f"Keras downloads the weights of {name}, and that failed ({error}). Without access to "
            f"the internet use one of {', '.join(NAMES)}, whose weights come with the extra "
            '"train", put the file into ~/.keras/models, or hand over a Keras model of your own.'
        ) from error
    pictures = keras.Input((*framing.size, 3))
    prepared = module.preprocess_input(pictures)
    flat = keras.Model(network.inputs, [layer.output for layer in _candidates(network)])
    outputs = flat(prepared)
    named = [
        keras.layers.Identity(name=layer.name)(output)
        for layer, output in zip(_candidates(network), outputs, strict=True)
    ]
    return keras.Model(pictures, named, name=name)


@lru_cache(maxsize=2)
def _lite(name: str, weights: WeightsFile, size: tuple[int, int]) -> keras.Model:
    """Built once, for all that are trained in a process; nobody changes it."""
    return efficientnet_lite(name, weights.read(), size)


def _candidates(network: keras.Model) -> list[keras.layers.Layer]:
    """Layers whose output is a feature map."""
    return [
        layer
        for layer in network.layers
        if not isinstance(layer, keras.layers.InputLayer)
        and hasattr(layer, "output")
        and hasattr(layer.output, "shape")
        and len(layer.output.shape) == 4
    ]


def _layer(network: keras.Model, name: str) -> keras.layers.Layer:
    try:
        return network.get_layer(name)
    except ValueError:
        candidates = _candidates(network)
        named = [layer for layer in candidates if isinstance(layer, keras.layers.Identity)]
        last = {layer.output.shape[1:3]: layer.name for layer in named or candidates}
        raise BackboneError(
            f"{network.name} has no layer {name!r}. The last layer of each size of feature map: "
            f"{', '.join(f'{layer!r} {h}x{w}' for (h, w), layer in last.items())}."
        ) from None

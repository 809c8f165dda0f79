"""What trainings on the same images have in common: decoded images, and pretrained features."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..images import Framing, ImageSet
from ..methods import registry
from ..methods.features import FeatureSet
from ..model import Plan
from ..runtime import INT8, Engine
from ..support import bar
from ..workers import Spreading, current
from .spread import SpreadFeatures

if TYPE_CHECKING:
    from ..methods.base import StatisticalDetector

_MOST = 4  # sets of images, and of features, on disk at a time


@dataclass(frozen=True)
class OwnFeatures:
    """The features of a method.

    Parameters
    ----------
    set : FeatureSet or SpreadFeatures
        Of all images that are learnt from.
    of : callable
        Those of any views: uint8 (B, height, width, channels) -> named arrays.
    quantised : openvino.Model or None
        What they come from, where that is quantised.
    """

    set: FeatureSet | SpreadFeatures
    of: Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]
    quantised: ov.Model | None = None


class Shared:
    """Decoded images and features, kept while several trainings want them.

    A training by itself has one of its own. Use it as a context manager: leaving it removes the
    files. Of images and of features the last four sets are kept.

    Parameters
    ----------
    together : sequence of (Plan, StatisticalDetector)
        Methods that take the same of an image. Their features are computed in one pass, in which
        what they have in common, such as a backbone, is computed once.
    has_own_network : bool
        Whether the backbone is a network of the user's.
    for_members : bool
        Whether methods learn as members of an ensemble, which wants all that is said of an image.
    """

    def __init__(
        self,
        together: Sequence[tuple[Plan, StatisticalDetector]] = (),
        *,
        has_own_network: bool = False,
        for_members: bool = False,
    ) -> None:
        self._together = [*together]
        self.has_own_network, self.for_members = has_own_network, for_members
        self._images: dict[str, ImageSet] = {}
        self._features: dict[str, tuple[ov.Model, Engine, FeatureSet | SpreadFeatures]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for images in self._images.values():
            images.__exit__()
        for *_, features in self._features.values():
            features.__exit__()
        self._images.clear()
        self._features.clear()

    def images(self, paths: Sequence[Path], framing: Framing) -> ImageSet:
        """Decoded and framed; errors as in `ImageSet.decode`."""
        key = _digest(repr(framing), *map(str, paths))
        if key not in self._images:
            with bar(len(paths), "Reading images") as step:
                found = ImageSet.decode(paths, framing, lambda: step(""))
            if len(self._images) == _MOST:
                self._images.pop(next(iter(self._images))).__exit__()
            self._images[key] = found
        return self._images[key]

    def features(
        self,
        detector: StatisticalDetector,
        plan: Plan,
        images: ImageSet,
        check: Callable[[Engine], None],
    ) -> OwnFeatures:
        """The features of a method.

        Parameters
        ----------
        detector : StatisticalDetector
            The method.
        plan : Plan
            Its plan.
        images : ImageSet
            All that is learnt from.
        check : callable
            Raises an error where an engine cannot be used.
        """
        from ..runtime.convert import to_openvino

        places = [n for n, (each, _) in enumerate(self._together) if _is_same(each, plan)]
        graph = detector.features()
        if places:
            model, prefix = self._joint, f"{places[0]}/"
        else:
            model, prefix = to_openvino(graph), ""
        key = _digest(plan.precision, _content(model), *images.digests())
        if key not in self._features:
            if plan.precision == INT8:
                from .quantised import quantised

                model = quantised(model, images)
            engine = Engine(model, plan.precision)
            check(engine)
            with bar(len(images), "Features") as step:
                found = self._computed(detector, plan, engine, images, step)
            if len(self._features) == _MOST:
                self._features.pop(next(iter(self._features)))[-1].__exit__()
            self._features[key] = model, engine, found
        model, engine, found = self._features[key]
        # `inside` is one for all, and some methods do without.
        names = {(name if name == "inside" else f"{prefix}{name}"): name for name in graph.output}

        def of(views: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            outputs = engine.run_all(views)
            return {own: outputs[name] for name, own in names.items()}

        front = model.clone() if plan.precision == INT8 else None
        return OwnFeatures(found.renamed(names), of, front)

    def _computed(
        self,
        detector: StatisticalDetector,
        plan: Plan,
        engine: Engine,
        images: ImageSet,
        step: Callable[[str], None],
    ) -> FeatureSet | SpreadFeatures:
        """The features; left in other processes where these can build the method themselves."""
        workers = current()
        is_known = registry.is_own(plan.method) and not self.has_own_network
        is_alone = not (self._together or self.for_members or detector.statistic.count)
        if workers.spreads and is_known and is_alone:
            return SpreadFeatures(cast(Spreading, workers), plan, engine, images, step)
        return FeatureSet.compute(engine, images, step)

    @cached_property
    def _joint(self) -> ov.Model:
        """The graph of all that are learnt together."""
        from ..methods.joint import joint_features
        from ..runtime.convert import to_openvino

        detectors = [detector for _, detector in self._together]
        model: ov.Model = to_openvino(joint_features(detectors, self._together[0][0].framing))
        return model


def _is_same(first: Plan, second: Plan) -> bool:
    """Whether two plans have the same features."""
    names = ("method", "parameters", "framing", "precision", "seed")
    return all(getattr(first, name) == getattr(second, name) for name in names)


def _digest(*parts: str) -> str:
    return hashlib.sha256(os.fsencode("\n".join(parts))).hexdigest()


def _content(model: ov.Model) -> str:
    """A hash of what a model computes."""
    digest = hashlib.sha256()
    places: dict[str, int] = {}
    for number, node in enumerate(model.get_ordered_ops()):
        places[node.get_friendly_name()] = number
        kind = node.get_type_name()
        sources = [each.get_source_output() for each in node.inputs()]
        reads = [
            (places[each.get_node().get_friendly_name()], each.get_index()) for each in sources
        ]
        attributes = sorted(node.get_attributes().items())
        names = sorted(name for each in node.outputs() for name in each.get_names())
        digest.update(repr((kind, reads, attributes, names if kind == "Result" else 0)).encode())
        if kind == "Constant":
            digest.update(np.ascontiguousarray(node.data).tobytes())
    return digest.hexdigest()

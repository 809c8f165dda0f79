"""Ensemble: several methods as one model, whose answers are brought to one unit and averaged.

Members answer in units of their own. On good images that a member has not learnt, the logarithm of
its score has a median and a deviation; by these its answers are standardised, and the mean over the
members is the image score. So an image counts as odd by how far it is beyond good ones, whatever
the unit. All members are one graph, in which what they share, such as the backbone, is run once.

z = (log score - median) / deviation is the answer of a member for an image, where the deviation is
1.4826 times the median absolute one. The map of a member is standardised likewise, by the largest
values of its maps of good images, and bent so that it is positive: z + 1 above the median, exp(z)
below. What one member sees as odd then is odd in the mean, and what none does is next to zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from .base import Arrays, Detector, TrainingRecord, check_state
from .heads import joined, masked, model_input

_TINY = 1e-20  # a score of zero has no logarithm
_NORMAL = 1.4826  # times the median absolute deviation is the standard deviation of a Gaussian
_LEAST = 1e-3  # of a deviation; the logarithm of a score is known no better
_KINDS = ("score", "anomaly_map")


@dataclass(frozen=True)
class Member:
    """One method of an ensemble.

    Parameters
    ----------
    name : str
        As the user gave it: a method, or the path of a saved model.
    method : str
        Its name in the registry.
    parameters : dict
        Its options.
    detector : Detector
    training : mapping or None
        Of a saved model, which is taken as it is: what its manifest says of its training. None for
        a method that is still to be fitted.
    """

    name: str
    method: str
    parameters: dict[str, Any]
    detector: Detector
    training: Mapping[str, Any] | None = None


class Ensemble(Detector):
    """Several detectors as one.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`; the framing is that of all members.
    members : sequence of Member

    Attributes
    ----------
    middle, spread : ndarray of float32, shape (2, members)
        Median and deviation of the logarithms of unseen good images' scores, and of the largest
        values of their maps; 0 and 1 where a member has no map.
    """

    def __init__(
        self, framing: Framing, patch_size: int, seed: int, *, members: Sequence[Member]
    ) -> None:
        self.framing = framing
        self.members = members
        self.record = TrainingRecord()
        self.middle = np.zeros((len(_KINDS), len(members)), np.float32)
        self.spread = np.ones((len(_KINDS), len(members)), np.float32)

    def standardise(
        self, unseen: Sequence[tuple[NDArray[np.floating], NDArray[np.floating] | None]]
    ) -> None:
        """Learn the members' units.

        Parameters
        ----------
        unseen : sequence of (ndarray, ndarray or None)
            Of each member the scores of good images that it has not learnt, and the largest values
            of their maps; None for one without maps.
        """
        for index, values in enumerate(unseen):
            for kind, some in enumerate(values):
                if some is None:
                    continue
                logs = self._logs(np, index, np.asarray(some, np.float64), _KINDS[kind])
                middle = np.median(logs)
                spread = _NORMAL * np.median(np.abs(logs - middle)) or logs.std()
                self.middle[kind, index] = middle
                self.spread[kind, index] = max(spread, _LEAST)

    def combined(
        self, xp: Any, outputs: Sequence[Mapping[str, Any]], inside: Any | None = None
    ) -> dict[str, Any]:
        """The members' answers for a batch as one; `xp` is `keras.ops` or `numpy`."""
        each = [self._standing(xp, index, some) for index, some in enumerate(outputs)]
        maps = [one["anomaly_map"] for one in each if "anomaly_map" in one]
        found = {"score": _mean([one["score"] for one in each])}
        if maps:
            found["anomaly_map"] = masked(xp, _mean(maps), inside)
        return found

    def _standing(self, xp: Any, index: int, outputs: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for kind, name in enumerate(_KINDS):
            if name not in outputs:
                continue
            logs = self._logs(xp, index, outputs[name], name)
            z = (logs - self.middle[kind, index]) / self.spread[kind, index]
            if name == "anomaly_map":
                z = xp.where(z > 0, z + 1, xp.exp(xp.minimum(z, np.float32(0))))
            found[name] = z
        return found

    def _logs(self, xp: Any, index: int, values: Any, name: str) -> Any:
        """The score of a member whose scores are logarithms is taken as it is."""
        if name == "score" and self.members[index].detector.scores_are_logs:
            return values
        return xp.log(xp.maximum(values, np.float32(_TINY)))

    def graph(self) -> keras.Model:
        """The members' graphs on the same images, and the mean of their answers."""
        images, inside = model_input(self.framing)
        inputs = joined(images, inside)
        outputs = [member.detector.graph()(inputs) for member in self.members]
        return keras.Model(inputs, self.combined(ops, outputs, inside))

    def state(self) -> dict[str, NDArray[Any]]:
        """Those of the members, and their units."""
        own = {"middle": self.middle, "spread": self.spread}
        for index, member in enumerate(self.members):
            state = member.detector.state()
            own |= {f"{_prefix(index)}{name}": array for name, array in state.items()}
        return own

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        own = {name: array for name, array in state.items() if not name.startswith("member")}
        check_state(own, {"middle": self.middle.shape, "spread": self.spread.shape})
        self.middle, self.spread = own["middle"], own["spread"]
        for index, member in enumerate(self.members):
            prefix = _prefix(index)
            part = {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}
            member.detector.restore(part)
        return self


def _prefix(index: int) -> str:
    return f"member{index}_"


def _mean(values: Sequence[Any]) -> Any:
    return sum(values[1:], values[0]) * np.float32(1 / len(values))

"""What a user asked for: a method with its options or a saved model, and where it is saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ..errors import ModelError, NotTrainedError, OptionError
from ..images import PathLike, Survey, check_path
from ..images.pose import Pose
from ..methods import registry
from ..runtime import INT8
from .manifest import is_model, models_below
from .members import framing_of, saved_members
from .plan import Plan
from .store import StoredModel, load

SAVE_PATH = "Models/"
# Options that saved members of an ensemble have fixed: all that decide what is taken of an image.
_OTHERS = ("train_path", "save_path", "name", "patch_size", "seed", "false_alarm_rate", "precision")
_OF_FRAMING = [name for name in registry.OPTIONS if name not in _OTHERS]


@dataclass(frozen=True)
class Choice:
    """A method with its options, or a saved model; and where it is saved.

    Parameters
    ----------
    plan : Plan
        What is, or is going to be, made.
    directory : Path
        The model directory that training writes.
    stored : StoredModel or None
        The model that was loaded or trained.
    options : dict or None
        What the user gave, by the names of `AD`; None where a saved model has fixed it, or the
        saved members of an ensemble have.
    network : keras.Model or None
        A backbone of the user's own.
    """

    plan: Plan
    directory: Path
    stored: StoredModel | None = None
    options: Mapping[str, Any] | None = None
    network: Any = None

    @classmethod
    def of(
        cls, model_name: PathLike, save_path: PathLike, name: str | None, given: Mapping[str, Any]
    ) -> Self:
        """What `AD` was constructed with; parameters and errors as there."""
        directory = check_path(save_path, "save_path") / _directory_name(name)
        options = dict(given)
        network = None
        if not isinstance(options.get("backbone", ""), str):
            network = options["backbone"]
            options["backbone"] = _own_name(network)
        if isinstance(options.get("members"), (list, tuple)):
            options["members"] = [
                os.fspath(each) if isinstance(each, os.PathLike) else each
                for each in options["members"]
            ]
        if isinstance(model_name, str) and model_name in registry.PRESETS:
            if options.get("precision") == INT8:
                raise OptionError(
                    "precision='int8' is not trained by itself: `anomaly-ad optimize MODEL` makes "
                    "it of a model, and shows first whether it is faster and finds as much."
                )
            plan = Plan.from_options(model_name, options)
            framing = None
            if registry.preset(model_name).combines:
                framing = framing_of(saved_members(plan.parameters["members"]))
            if framing is None:
                return cls(plan, directory, options=options, network=network)
            fixed = sorted(name for name in _OF_FRAMING if options.get(name) is not None)
            if fixed:
                raise OptionError(
                    f"The saved members have their own {', '.join(fixed)}. Leave the option out, "
                    "or name methods instead of saved models."
                )
            patch_size = min(plan.patch_size, *framing.size)
            return cls(replace(plan, framing=framing, patch_size=patch_size), directory)
        own = options.pop("backbone") if network is not None else None
        stored = _load(model_name, options)
        plan = stored.manifest.plan
        if own is not None and own != plan.parameters.get("backbone"):
            raise OptionError(
                f"The model in {model_name} was not trained on this backbone. Hand over the one "
                "that it was trained on, with the same weights; or leave it out."
            )
        if save_path == SAVE_PATH:
            home = stored.directory
            directory = home if name is None else home.with_name(_directory_name(name))
        return cls(plan, directory, stored, network=network)

    @property
    def model(self) -> StoredModel:
        """The model; NotTrainedError if there is none yet."""
        if self.stored is None:
            raise NotTrainedError(
                'There is no model yet. Call train() first, or load one: AD("Models/model").'
            )
        return self.stored

    @property
    def state(self) -> str:
        """Whether there is a model, in words."""
        return "not trained" if self.stored is None else f"model {self.stored.digest[:12]}"

    @property
    def takes_their_shape(self) -> bool:
        """Whether the model's input takes the shape of the images that it is trained on."""
        if self.options is None or self.options["img_size"] is not None:
            return False
        return registry.preset(self.plan.method).largest_area is not None

    @property
    def learns_values(self) -> bool:
        """Whether the values of images of more than 8 bits are learnt from those to train on."""
        return self.options is not None and self.options.get("value_range") is None

    def planned(self, found: Survey, pose: Pose | None = None) -> Plan:
        """The plan for images like these, which are brought into a pose."""
        if self.options is None:
            return self.plan
        return Plan.from_options(
            self.plan.method,
            self.options,
            found.sizes,
            found.value_range,
            deep=bool(found.depth),
            pose=pose,
        )

    def option(self, name: str, default: Any) -> Any:
        """What the user gave; the default where that is None, or where a saved model fixes it."""
        given = None if self.options is None else self.options.get(name)
        return default if given is None else given

    def with_model(self, stored: StoredModel) -> Self:
        """The same with a model that was just trained, or calibrated."""
        return replace(self, stored=stored, plan=stored.manifest.plan)


def _directory_name(name: Any) -> str:
    if name is None:
        return "model"
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set('/\\:*?"<>|\0'):
        raise OptionError(
            "name is that of a folder in save_path, without separators, such as 'nut'. "
            f"Received: {name!r}."
        )
    return name


def _own_name(network: Any) -> str:
    """What the manifest calls a backbone that the user hands over."""
    if not hasattr(network, "get_weights"):
        raise OptionError(
            f"backbone is a name or a Keras model. Received: {type(network).__name__}."
        )
    from ..backbones.networks import own_name  # who has a Keras model has Keras

    return own_name(network)


def _load(path: PathLike, given: Mapping[str, Any]) -> StoredModel:
    names = ", ".join(registry.PRESETS)
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(
            f"model_name is the name of a method ({names}) or the path of a saved model. "
            f"Received: {path!r}."
        )
    if isinstance(path, str) and not path:
        raise OptionError(f"model_name is empty. Name a method ({names}) or a saved model.")
    if not is_model(path):
        near = [str(found) for found in models_below(path)]
        hint = f"Did you mean {' or '.join(near)}?" if near else "Check the spelling or the path."
        raise ModelError(
            f"{str(path)!r} is neither the name of a method ({names}) nor a directory that holds "
            f"a saved model. {hint}"
        )
    refused = sorted(name for name, value in given.items() if value is not None)
    if refused:
        raise OptionError(
            f"The model in {path} has its own {', '.join(refused)}. Leave the option out, or "
            f"train a new model with one of the methods {names}."
        )
    return load(path)

"""What is said around a training: before it what is going to be done, and after it what came of it.

`Work` and `Trained` are values whose `str` is for people; `steps` does the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError
from ..images import TrainingImages, survey
from ..images.names import is_for_test, meaning
from ..methods import registry
from ..model import Choice, Plan, StoredModel
from ..runtime import INT8
from ..support import printable, say
from . import steps
from .shared import Shared
from .taking import planned

_HARDLY_A_LIMIT = 0.1  # of good parts may be rejected; more is said


@dataclass(frozen=True)
class Work:
    """A training, before it is done. Its `str` says what the user may not expect of it.

    Parameters
    ----------
    plan : Plan
        What is going to be made.
    epochs : int or None
        Passes over the images; None for the method's own.
    notes : tuple of str
        Lines for people.
    """

    plan: Plan
    epochs: int | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.notes)


@dataclass(frozen=True)
class Trained:
    """What came of a training. Its `str` says what the limit promises, and what to beware of.

    Parameters
    ----------
    stored : StoredModel
        The model.
    before : StoredModel or None
        The model that was there, or none.
    """

    stored: StoredModel
    before: StoredModel | None = None

    def __str__(self) -> str:
        manifest = self.stored.manifest
        training, calibration = manifest.training, manifest.calibration
        lines = [f"Saved the model in {self.stored.directory}"]
        is_own = self.before is not None and self.before.directory == self.stored.directory
        if self.stored.replaced and not is_own:
            lines.append(
                f"It replaces the previous model: {self.stored.replaced}. Use another `name` to "
                "keep both."
            )
        limit = calibration.image
        left_out = "it" if limit.n_groups is None else "its group"
        how = (
            f"each scored by a model fitted without {left_out}"
            if "folds" in training
            else "which training has not seen"
        )
        lines.append(
            f"The decision limit comes from {limit.n_images} good images, {how}: "
            f"{calibration.promise}."
        )
        if limit.stated_rate > limit.asked_rate:
            lines.append(f"A rate of {limit.asked_rate:.1%} needs at least {limit.needed}.")
        if limit.stated_rate > _HARDLY_A_LIMIT:
            few, more = "images", "photographs"
            if limit.n_groups is not None:
                few, more = "groups", "photographs of other parts"
            lines.append(
                f"Warning: with so few {few} the limit means little: up to "
                f"{limit.stated_rate:.0%} of good parts may be rejected. Take more {more} "
                "before you rely on it."
            )
        if warning := still_falling(training):
            lines.append(f"Warning: {warning}")
        return "\n".join(map(printable, lines))


def check(choice: Choice, epochs: int | None) -> None:
    """Raise an error where a training cannot begin, before images are read."""
    is_whole = isinstance(epochs, int) and not isinstance(epochs, bool)
    if epochs is not None and (not is_whole or epochs < 1):
        raise OptionError(f"epochs is a whole number from 1. Received: {epochs!r}.")
    registry.preset(choice.plan.method).checked(choice.plan.parameters)
    registry.check_extra("Training")


def prepare(choice: Choice, good: TrainingImages, epochs: int | None) -> Work:
    """What is going to be done; the input takes the shape of the images where the method wants it.

    Parameters
    ----------
    choice : Choice
        The method, or a model to train again.
    good : TrainingImages
        Images of good parts.
    epochs : int or None
        Passes over the images; None for the method's own.
    """
    method = choice.plan.method
    preset = registry.preset(method)
    registry.detector_class(method)
    notes = []
    if preset.is_statistical and epochs is not None:
        notes.append(f"{method} learns in one pass and needs no epochs; `epochs` is ignored.")
    found = survey(good.paths, values=choice.learns_values)
    plan, learnt = planned(choice, good, found)
    notes += learnt
    if choice.takes_their_shape and found.sizes:
        height, width = plan.framing.size
        notes.append(
            f"Model input: {height}x{width} pixels (height x width), to match the shape of the "
            f"{'images' if plan.framing.tiles is None else 'tiles'}; set img_size to change it."
        )
    if choice.option("tiles", choice.option("tile_size", None)) is not None:
        notes.append(_on_tiles(plan))
    if found.value_range is not None:
        low, high = found.value_range
        notes.append(
            f"Value range: {low:g} to {high:g}, learnt from the images ({found.depth}), becomes 0 "
            "to 255; set value_range to change it."
        )
    if good.excluded:
        notes.append(f"Excluded by the user: {len(good.excluded)}; {len(good.paths)} are left.")
    if good.groups:
        notes.append(f"Groups: {good.grouping}, such as {good.groups[0]!r}.")
    return Work(plan, epochs, tuple(notes))


def _on_tiles(plan: Plan) -> str:
    tiles = plan.framing.tiles
    if tiles is None:
        return "Tiles: one view of each photograph is enough; it is inspected without tiles."
    return (
        f"Tiles: {tiles} (height x width), {tiles.count} views of each photograph; inspecting "
        f"takes about {tiles.count} times as long as without. Fewer take less: name the "
        "smallest_defect, or a larger tile_size."
    )


def train(
    choice: Choice,
    good: TrainingImages,
    work: Work,
    *,
    shared: Shared | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> Trained:
    """Train and save; `shared`, `chosen` and errors as in `steps.train`."""
    stored = steps.train(
        work.plan,
        good,
        choice.directory,
        epochs=work.epochs,
        before=choice.stored,
        network=choice.network,
        shared=shared,
        chosen=chosen,
    )
    return Trained(stored, choice.stored)


def add_images(choice: Choice, good: TrainingImages) -> Trained:
    """Add images and save; errors as in `steps.add_images`."""
    if choice.model.manifest.calibration.record:
        say("The limit of `calibrate` is replaced by that of all good images; calibrate again.")
    stored = steps.add_images(choice.model, good, choice.directory, network=choice.network)
    return Trained(stored, choice.stored)


def check_adding(choice: Choice, *, in_groups: bool) -> None:
    """Raise an error where images cannot be added to a model, before they are read."""
    plan = choice.model.manifest.plan
    method, preset = plan.method, registry.preset(plan.method)
    if not preset.adds_images:
        able = [name for name, other in registry.PRESETS.items() if other.adds_images]
        raise OptionError(
            f"{method} cannot take further images exactly: train it again with all images. Methods "
            f"that can: {', '.join(able)}."
        )
    preset.checked(plan.parameters)
    if plan.precision == INT8:
        raise OptionError(
            "A quantised model is made of all its images at once. Add them to the model that it "
            "was made of, then call `anomaly-ad optimize` again."
        )
    knows_groups = bool(choice.model.manifest.groups)
    if knows_groups and not in_groups:
        raise OptionError(
            "The model was trained on groups of images. Pass `groups` for these, too: whether they "
            "are of parts that it has learnt from decides whether it can be calibrated with them."
        )
    if in_groups and not knows_groups:
        raise OptionError(
            "The model was trained without groups, so whether it has learnt from these parts is "
            "not known. Train it again with all images and `groups`."
        )
    registry.check_extra("Training")


def doubts(good: TrainingImages) -> list[str]:
    """What may be wrong with images that are going to be learnt from, for people."""
    lines = []
    named = [path for path in good.paths if meaning(path.stem) == "defective"]
    if named:
        lines.append(f"Warning: {named[0].name} is named like a defect. Is it a good part?")
    folders = {part for path in good.paths for part in path.absolute().parent.parts}
    if any(map(is_for_test, folders)):
        lines.append(
            "Warning: some of these images are in a folder called test. Images used for training "
            "cannot show how good the model is; evaluate on others."
        )
    return [*map(printable, lines)]


def still_falling(record: Mapping[str, Any]) -> str:
    """A word of warning where all epochs were run and it was still getting better; else empty."""
    history = record.get("history", {})
    losses = history.get("val_loss", history.get("missed", []))
    epochs = len(losses)
    if epochs < record.get("max_epochs", epochs):
        return ""
    # By more than 1 % since a fifth of the epochs ago, and the last was the best.
    earlier = losses[: epochs - max(1, epochs // 5)]
    if epochs < 2 or min(losses) < losses[-1] or losses[-1] > 0.99 * min(earlier):
        return ""
    told = "the validation loss was still falling"
    if "val_loss" not in history:
        told = "fewer and fewer rendered defects were missed"
    return (
        f"{told} when training ended after {epochs} "
        f"{'epoch' if epochs == 1 else 'epochs'}. Train longer, or call train again to continue."
    )

"""The line of training: learn, graph, convert, prove, scores of unseen images, limits, save.

Needs the extra "train": Keras is loaded when it works, not when it is imported.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from .._version import __version__
from ..errors import DataError, ImageError, ModelError, OptionError, PathError
from ..images import Framing, ImageSet, Photograph, TrainingImages, image_digest
from ..images.exclusion import located
from ..images.groups import numbered
from ..methods import registry
from ..model import (
    GoodScores,
    Manifest,
    ModelWriter,
    Plan,
    StoredModel,
    check_new_groups,
    framing_of,
    load,
    saved_members,
)
from ..runtime import INT8, Engine
from ..runtime.agreement import compared
from ..support import ordered_map, say
from .learning import check_input, learn, least_groups
from .shared import Shared
from .unseen import unseen_scores, with_defects

if TYPE_CHECKING:
    from ..methods.ensemble import Member


def train(
    plan: Plan,
    good: TrainingImages,
    directory: Path,
    *,
    epochs: int | None,
    before: StoredModel | None = None,
    network: Any = None,
    shared: Shared | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> StoredModel:
    """Train and save a model. Nothing is saved until all is proven.

    A method that learns by gradient gets the images in three disjoint, seeded parts: for fitting,
    for validation (which weights are best) and for calibration (where good ends). A statistical
    method is fitted to all of them, and calibrated with the scores that each image gets from the
    statistics of the others (cross-fitting).

    Parameters
    ----------
    plan : Plan
        What to make.
    good : TrainingImages
        Images of good parts.
    directory : Path
        The model directory; a model there is replaced.
    epochs : int or None
        Passes over the images, for methods that learn by gradient; None for the method's own.
    before : StoredModel, optional
        A model of the same plan. A method that learns by gradient goes on from its weights if it
        was trained on the same images in the same groups, and begins from the start if not; a
        statistical one always does.
    network : keras.Model, optional
        A backbone of the user's own.
    shared : Shared, optional
        Decoded images and features of other trainings on the same images.
    chosen : mapping, optional
        Why this method or these options, for the manifest.

    Raises
    ------
    DataError
        Too few images or groups, broken images, or images that are all the same.
    BackboneError
        The backbone cannot be had or does not fit.
    MissingExtraError
        TensorFlow, or the package of the backbone's weights, is not installed.
    ParityError
        The converted model is not the trained one.
    OutputError
        The model cannot be saved.
    """
    start = time.perf_counter()
    detector = build(plan, network)
    least = _least_images(plan, detector)
    _check_count(len(good.paths), least)
    excluded = _excluded(good, plan.framing)
    if good.groups:
        _check_groups(numbered(good.groups), plan, detector)
    with ExitStack() as stack:
        shared = shared or stack.enter_context(
            Shared(
                has_own_network=network is not None,
                for_members=registry.preset(plan.method).combines,
            )
        )
        images, own = _decode(good, plan, shared, {one["digest"] for one in excluded})
        _check_count(len(images), least)
        groups = _groups_of(own, len(images))
        _check_groups(groups, plan, detector)
        if registry.preset(plan.method).combines:
            _check_members(detector.members, own)
        if before is not None and not _same_images(before.manifest.training, own):
            # Other images are divided otherwise: some that the old weights were fitted to would be
            # calibrated with, and the stated false alarm rate would not hold.
            say(
                "The loaded model was trained on other images, or on other groups of them: "
                "training starts from scratch."
            )
            before = None
        reading = time.perf_counter() - start
        record = {"images": own["images"], "sets": [own], "seconds": reading}
        if excluded:
            record["excluded"] = excluded
        if chosen:
            record["chosen"] = dict(chosen)
        if good.groups:
            record["n_groups"] = int(groups.max()) + 1
        return _make(
            plan,
            detector,
            images,
            groups,
            record,
            directory,
            shared,
            epochs=epochs,
            before=before,
        )


def add_images(
    stored: StoredModel, good: TrainingImages, directory: Path, *, network: Any = None
) -> StoredModel:
    """Add images of good parts to a model as if they had been there before, and save it.

    The new images are scored by the statistics of all others, old and new; these scores join those
    that the old images got when they came, and the limits are taken from all.

    Images that the model knows already, and those that a person excluded from its training, are
    left out; parameters and errors as in `train`, and
    DataError also if none is left, or if some are of groups that the model has learnt from: scores
    by a statistic that has seen others of the group are not those of unseen parts.
    """
    plan = stored.manifest.plan
    detector = build(plan, network)
    _check_count(len(good.paths), 2)
    held_out = _of_training(stored)
    detector.restore(stored.detector_state())
    record = stored.manifest.training
    manifest = stored.manifest
    known = manifest.learnt | {*manifest.excluded.values()}
    with Shared() as shared:
        images, added = _decode(good, plan, shared, known)
        check_new_groups(stored.manifest, added.get("groups", ()))
        groups = _groups_of(added, len(images))
        together = f"{record.get('images')}{added['images']}".encode()
        record = {
            **record,
            "images": hashlib.sha256(together).hexdigest(),
            "sets": [*record.get("sets", []), added],
            "seconds": float(record.get("seconds", 0)),
        }
        if good.groups:
            record["n_groups"] += int(groups.max()) + 1
        return _make(plan, detector, images, groups, record, directory, shared, held_out=held_out)


def _make(
    plan: Plan,
    detector: Any,
    images: ImageSet,
    groups: NDArray[np.intp],
    record: dict[str, Any],
    directory: Path,
    shared: Shared,
    *,
    epochs: int | None = None,
    before: StoredModel | None = None,
    held_out: GoodScores | None = None,
) -> StoredModel:
    """Learn, graph, convert, prove, score unseen good images, take the limits, save.

    What is proven and scored is the file that is saved.
    """
    from ..runtime.convert import TOLERANCE, prove_parity, to_openvino, traced

    start = time.perf_counter()
    learnt = learn(
        detector,
        images,
        plan,
        epochs=epochs,
        before=before,
        held_out=held_out,
        groups=groups,
        shared=shared,
    )
    seconds = round(record["seconds"] + time.perf_counter() - start, 1)
    graph = detector.graph()
    with ModelWriter(directory) as writer:
        if learnt.quantised is None:
            function = traced(graph)
            writer.write_graph(to_openvino(function))
        else:
            writer.write_graph(_with_head(learnt.quantised, detector, graph))
        engine = Engine(writer.xml, INT8 if learnt.quantised else "f32")
        check_input(engine, plan)
        shown = with_defects(learnt.shown, plan.framing)
        if learnt.quantised is None:
            parity = prove_parity(function, engine, shown)
        else:  # the graph's features are others; the formula has those of the model
            assert learnt.formula is not None
            found = learnt.formula(shown)
            parity = compared(found, engine.run_all(shown, found), len(shown), TOLERANCE)
        if plan.precision not in ("f32", INT8):
            engine = Engine(writer.xml, plan.precision)
        good = unseen_scores(learnt, engine, plan.framing)
        if record.get("excluded"):
            n_kept = sum(len(own["digests"]) for own in record["sets"])
            good = replace(good, n_kept=n_kept)
        writer.write_state({**detector.state(), **good.arrays()})
        manifest = Manifest(
            plan=plan,
            outputs=engine.output_names,
            calibration=good.calibration(plan.false_alarm_rate),
            training={**record, **learnt.record, "seconds": seconds},
            parity=parity.to_dict(),
            versions=_versions(),
        )
        del engine  # its file is about to be moved, and Windows keeps open files where they are
        writer.commit(manifest)
    return replace(load(directory), replaced=writer.replaced)


def _with_head(front: ov.Model, detector: Any, graph: Any) -> ov.Model:
    """Quantised features and what scores them as one model."""
    from ..methods.joint import head_of
    from ..runtime.convert import to_openvino
    from .quantised import joined

    names = {f"feature_{n}": name for n, name in enumerate(sorted(detector.features().output))}
    head = to_openvino(head_of(detector, graph), [*names])
    return joined(front, head, names)


def _of_training(stored: StoredModel) -> GoodScores:
    """What the images that the model was trained on scored, as the formula gave it."""
    try:
        scores = GoodScores.from_arrays(stored.state(), cross_fitted=stored.is_cross_fitted)
        return replace(scores, raised=(0.0, 0.0))
    except (KeyError, ValueError) as error:
        raise ModelError(f"The training state lacks {error}. Train the model again.") from error


def build(plan: Plan, network: Any = None) -> Any:
    """The detector of a plan, not fitted yet; `network` takes the place of its backbone's name.

    Of an ensemble, the members that are saved models are restored.
    """
    cls = registry.detector_class(plan.method)
    if registry.preset(plan.method).combines:
        return cls(plan.framing, plan.patch_size, plan.seed, members=_members(plan))
    own = {} if network is None else {"backbone": network}
    return cls(plan.framing, plan.patch_size, plan.seed, **{**plan.parameters, **own})


def _members(plan: Plan) -> list[Any]:
    from ..methods.ensemble import Member

    names = plan.parameters["members"]
    stored = saved_members(names)
    framing = framing_of(stored)
    if framing is not None and framing != plan.framing:
        raise OptionError(
            f"The saved members of this ensemble ({', '.join(stored)}) have changed since it was "
            "trained: they take other photographs. Make a new ensemble of them."
        )
    members = []
    for name in names:
        if name in stored:
            own = stored[name].manifest
            found = build(own.plan).restore(stored[name].detector_state())
            members.append(Member(name, own.plan.method, own.plan.parameters, found, own.training))
        else:
            parameters = registry.preset(name).parameters
            own_plan = replace(plan, method=name, parameters=parameters)
            members.append(Member(name, name, parameters, build(own_plan)))
    return members


def _check_members(members: Sequence[Member], about: Mapping[str, Any]) -> None:
    """Raise DataError unless the saved members of an ensemble have learnt these images."""
    for member in members:
        if member.training is not None and not _same_images(member.training, about):
            raise DataError(
                f"The member {member.name} was trained on other images, or on other groups of "
                "them, so it cannot be told what it says of those it has not learnt. Train the "
                "ensemble on the images that all members were trained on, or name methods instead "
                "of saved models."
            )


def _check_count(count: int, minimum: int) -> None:
    if count < minimum:
        raise DataError(
            f"Training needs at least {minimum} images of good parts; {count} were found. "
            "Take more photographs; 50 to 200 are usual."
        )


def _least_images(plan: Plan, detector: Any) -> int:
    methods = [plan.method, *(member.method for member in getattr(detector, "members", ()))]
    return max(registry.preset(method).min_images for method in methods)


def _groups_of(about: Mapping[str, Any], count: int) -> NDArray[np.intp]:
    """The group of each of `count` images, as `_decode` describes them; shape (N,)."""
    return numbered(about["groups"]) if "groups" in about else np.arange(count)


def _check_groups(groups: NDArray[np.intp], plan: Plan, detector: Any) -> None:
    sizes = np.bincount(groups)
    least = least_groups(plan, detector)
    if len(sizes) < least:
        raise DataError(
            f"The {len(groups)} images are of {len(sizes)} "
            f"{'group' if len(sizes) == 1 else 'groups'}; {plan.method} needs at least {least}, "
            "since each is either learnt from or scored as unseen. Check `groups`, or take "
            "photographs of more parts."
        )
    others, least = len(groups) - int(sizes.max()), _least_images(plan, detector) // 2
    if others < least:
        raise DataError(
            f"{sizes.max()} of {len(groups)} images are of one group; to score it as unseen, at "
            f"least {least} others are needed to learn from. Check `groups`, or take photographs "
            "of more parts."
        )


def _same_images(training: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a model was trained on these images, in these groups."""
    before = [entry.get("groups") for entry in training.get("sets", [])]
    same_groups = before == [own["groups"]] if "groups" in own else not any(before)
    return training.get("images") == own["images"] and same_groups


def _decode(
    good: TrainingImages, plan: Plan, shared: Shared, known: Collection[str | None] = ()
) -> tuple[ImageSet, dict[str, Any]]:
    """The images and what the manifest says of them.

    Each image comes once: a copy in another part would make the decision limit too low.
    """
    images = shared.images(good.paths, plan.framing)
    digests = images.digests()
    first = {digest: index for index, digest in reversed([*enumerate(digests)])}
    if len(first) == 1 and len(images) > 1:
        raise DataError(
            f"All {len(images)} images look the same to the model, so it cannot learn how "
            "good parts vary. Are they copies, or all black?"
        )
    new = sorted(index for digest, index in first.items() if digest not in known)
    if not new:
        raise DataError(
            "The model has learnt from all of these images already, or they were excluded from "
            f"its training: {good}."
        )
    if len(new) < len(images):
        say(
            f"{len(images) - len(new)} of {len(images)} images are copies of others, known to "
            "the model already, or excluded; they are left out."
        )
    kept = [digests[index] for index in new]
    about: dict[str, Any] = {
        "source": str(good),
        "images": hashlib.sha256(
            " ".join([_as_in_format_1(plan.framing), *kept]).encode()
        ).hexdigest(),
        "digests": kept,
        **_located(good, new),
    }
    if good.groups:
        about["groups"] = [good.groups[index] for index in new]
        about["grouped_by"] = good.grouped_by
    return images.subset(np.array(new)), about


def _located(good: TrainingImages, kept: Sequence[int]) -> dict[str, Any]:
    """Where images are, so that they can be shown later: their folder and their names in it."""
    root, names = located(good)
    return {
        "folder": None if root is None else str(root),
        "names": [names[index].as_posix() for index in kept],
        **({"listed": True} if good.folder is None else {}),  # other files may lie there
    }


def _excluded(good: TrainingImages, framing: Framing) -> list[dict[str, str | None]]:
    """Names of the images that a person excluded and what they are; None for one that is damaged.

    Copies of them under other names are then left out as well.
    """

    def digest(path: Path) -> str | None:
        try:
            return image_digest(Photograph.read(path, framing).take().views)
        except (ImageError, PathError):
            return None

    names = located(good)[1][len(good.paths) :]
    return [
        {"name": name.as_posix(), "digest": found}
        for name, found in zip(names, ordered_map(digest, good.excluded), strict=True)
    ]


def _as_in_format_1(framing: Framing) -> str:
    """What models of format 1 hashed with their images: training goes on only where it is equal."""
    text = (
        f"ImageSpec(height={framing.height}, width={framing.width}, channels={framing.channels}, "
        f"fit={framing.fit!r})"
    )
    return text if framing.outside is None else f"{text} outside {framing.outside}"


def _versions() -> dict[str, str]:
    loaded = sys.modules  # the detector has imported them
    return {
        "anomaly_ad": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "openvino": ov.__version__,
        "keras": loaded["keras"].__version__,
        "tensorflow": loaded["tensorflow"].__version__,
    }

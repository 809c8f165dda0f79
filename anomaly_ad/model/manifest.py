"""The manifest of a model directory: what the model is, and which files belong to it.

    manifest.json        what the model is, and name, sha256 and size of every other file
    detector-<hash>.xml  the OpenVINO model; it runs alone, together with
    detector-<hash>.bin  its weights
    state-<hash>.npz     what training needs to go on

Files carry a hash of their content in their name, and the one commit is the replacement of
manifest.json. So a crash leaves the old model or the new one, and whoever has the old files open
goes on with them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ..errors import AnomalyADError, DataError, ModelError
from .calibration import Calibration
from .outside import outside_the_graph
from .plan import Plan

FORMAT = 1  # raise it when a reader of the old number would misread a new directory, and keep
# reading the old one: its frozen directory under tests/model/data must load for ever
MANIFEST = "manifest.json"
LARGEST = 2**30  # bytes of a manifest; of about 10 million training images
# What using values of another kind than expected may raise.
WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
PAYLOAD = re.compile(r"(detector|state)-[0-9a-f]{16}\.(xml|bin|npz)")


@dataclass(frozen=True)
class Manifest:
    """What a model is, apart from its arrays.

    Parameters
    ----------
    plan : Plan
        What decided how it was made.
    outputs : list of str
        Names of the model's outputs.
    calibration : Calibration
        Both limits.
    training, parity, versions : dict
        Records for people: what it was trained on, how well the conversion fits, with what.
    created : str
        UTC, ISO 8601.
    """

    plan: Plan
    outputs: list[str]
    calibration: Calibration
    training: dict[str, Any]
    parity: dict[str, Any]
    versions: dict[str, str]
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def __post_init__(self) -> None:
        kinds = {
            "outputs": list,
            "training": dict,
            "parity": dict,
            "versions": dict,
            "created": str,
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise ModelError(f"{name} is not a {kind.__name__}: {getattr(self, name)!r}.")
        deviations = self.parity.get("deviation", {})
        if not isinstance(deviations, dict) or not all(
            isinstance(value, (int, float)) for value in deviations.values()
        ):
            raise ModelError(f"parity holds numbers by output. Received: {deviations!r}.")
        sets = self.training.get("sets", [])
        if not isinstance(sets, list) or not all(isinstance(entry, dict) for entry in sets):
            raise ModelError(f"training holds a list of sets of images. Received: {sets!r}.")
        excluded = self.training.get("excluded", [])
        if not isinstance(excluded, list) or not all(isinstance(one, dict) for one in excluded):
            raise ModelError(f"training holds a list of excluded images. Received: {excluded!r}.")
        if not all(isinstance(name, str) for name in self.outputs):
            raise ModelError(f"outputs are names. Received: {self.outputs!r}.")

    @property
    def learnt(self) -> frozenset[str]:
        """Digests of the images that training has seen, see `images.image_digest`."""
        sets = self.training.get("sets", [])
        return frozenset(digest for entry in sets for digest in entry.get("digests", []))

    @property
    def places(self) -> list[tuple[str, Path, str]]:
        """Name, file and digest of each image that training has seen, as it was then."""
        return [
            (str(name), Path(one.get("folder") or "", str(name)), str(digest))
            for one in self.training.get("sets", [])
            for name, digest in zip(one.get("names", ()), one.get("digests", ()), strict=False)
        ]

    @property
    def excluded(self) -> dict[str, str | None]:
        """Names of the images that a person excluded -> digest; None for one that is damaged."""
        return {
            str(one.get("name")): one.get("digest") for one in self.training.get("excluded", [])
        }

    @property
    def n_kept(self) -> int | None:
        """How many images training has seen, where a person excluded others; None otherwise."""
        return len(self.learnt) if self.excluded else None

    @property
    def groups(self) -> frozenset[str]:
        """Groups of images that training has seen, see `images.groups`; empty without any."""
        sets = self.training.get("sets", [])
        return frozenset(label for entry in sets for label in entry.get("groups", []))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, and in words what lies outside the graph."""
        return {
            **asdict(self),
            "plan": self.plan.to_dict(),
            "outside_the_graph": outside_the_graph(self.plan.framing),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; keys that a later version added are passed over."""
        known = {entry.name: values[entry.name] for entry in fields(cls)}
        known["plan"] = Plan.from_dict(known["plan"])
        known["calibration"] = Calibration.from_dict(known["calibration"])
        return cls(**known)


def check_new_groups(manifest: Manifest, groups: Sequence[str]) -> None:
    """Raise DataError if a model has learnt from some of these groups of further images.

    Its statistic has seen other images of theirs, so their scores are not those of unseen parts.
    """
    learnt = [label for label in groups if label in manifest.groups]
    if learnt:
        names = [*dict.fromkeys(learnt)]
        shown = ", ".join(names[:5]) + (", ..." if names[5:] else "")
        raise DataError(
            f"Groups that the model has learnt from: {shown} ({len(learnt)} of these images). "
            "Their scores would not be those of unseen parts. Leave them out, or train again with "
            "all images."
        )


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a directory with a manifest."""
    return os.path.isfile(os.path.join(path, MANIFEST))  # False also where it may not be read


def models_below(path: str | os.PathLike[str]) -> list[Path]:
    """The first few model directories that lie in a folder."""
    try:
        folders = sorted(Path(path).iterdir())
    except (OSError, ValueError):
        return []
    return [folder for folder in folders if is_model(folder)][:3]


def summary_of(directory: Path) -> str:
    """A model in a few words, by its manifest: method, day, images; empty where there is none."""
    if not is_model(directory):
        return ""
    try:
        manifest = Manifest.from_dict(read_manifest(directory))
    except (AnomalyADError, *WRONG_VALUES):
        return "one that cannot be read"
    images = len(manifest.learnt)
    return f"{manifest.plan.method}, trained {manifest.created[:10]} on {images} images"


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a directory as plain values; ModelError if it cannot be used."""
    path = directory / MANIFEST
    try:
        if path.stat().st_size > LARGEST:
            raise damaged(directory, "its manifest is too large")
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{directory} holds no model: there is no {MANIFEST} in it. Name the directory that "
            "train() made, for example Models/model."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(directory, f"its manifest cannot be read ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise damaged(directory, "its manifest states no format")
    if data["format"] > FORMAT:
        raise ModelError(
            f"{directory} has format {data['format']}; this version of anomaly_ad reads formats "
            f"up to {FORMAT}. Update it with: python -m pip install --upgrade anomaly-ad"
        )
    if data["format"] != FORMAT or data.get("digest") != digest_of(data):
        raise damaged(directory, "its manifest was changed after it was saved")
    return data


def check_names(files: Any) -> dict[str, dict[str, Any]]:
    """The files that a manifest names; ModelError for any but those of a model."""
    if sorted(Path(name).suffix for name in files) != [".bin", ".npz", ".xml"]:
        raise ModelError(f"a model has one .xml, one .bin and one .npz file, not {sorted(files)}")
    for name, entry in files.items():
        # The pattern has no separator, so no name can lead out of the directory.
        if not PAYLOAD.fullmatch(name):
            raise ModelError(f"{name!r} is not the name of a file of a model")
        if not isinstance(entry["sha256"], str) or not isinstance(entry["size"], int):
            raise ModelError(f"the entry of {name} is incomplete")
    return dict(files)


def check_file(path: Path, entry: Mapping[str, Any]) -> None:
    """Raise ModelError unless a file is as it was saved, by its size and hash."""
    if os.path.islink(path) or not os.path.isfile(path):
        raise damaged(path.parent, f"{path.name} is missing")
    try:
        whole = path.stat().st_size == entry["size"] and sha256(path) == entry["sha256"]
    except OSError as error:
        raise ModelError(
            f"The model in {path.parent} cannot be opened: {path.name} cannot be read "
            f"({error.strerror}). Check that you may read it."
        ) from error
    if not whole:
        raise damaged(path.parent, f"{path.name} is not as it was saved")


def damaged(directory: Path, reason: str) -> ModelError:
    """The error for a directory that cannot be used, with the reason."""
    return ModelError(
        f"The model in {directory} is damaged: {reason}. Restore the directory from a copy, or "
        "train the model again."
    )


def digest_of(data: Mapping[str, Any]) -> str:
    """The digest of a manifest's values, apart from its own."""
    content = {name: value for name, value in data.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

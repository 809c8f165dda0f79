"""Save and load a model directory; no pickle, and nothing is imported by a name read from a file.

    manifest.json        what the model is, and name, sha256 and size of every other file
    detector-<hash>.xml  the OpenVINO model; it runs alone, together with
    detector-<hash>.bin  its weights
    state-<hash>.npz     what training needs to go on

Files carry a hash of their content in their name, and the one commit is the replacement of
manifest.json. So a crash leaves the old model or the new one, and whoever has the old files open
goes on with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import openvino as ov
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..errors import AnomalyADError, ModelError, OutputError
from ..runtime.engine import Engine
from .calibration import MAXIMA, RAISED, SCORES, Calibration, GoodScores
from .plan import Plan

# Before the names of scores in the state file that a later calibration has put there, next to those
# of the training.
LATER = "calibration_"

FORMAT = 1  # raise it when a reader of the old number would misread a new directory, and keep
# reading the old one: its frozen directory under tests/model/data must load for ever
MANIFEST = "manifest.json"

_MAX_MANIFEST = 2**30  # bytes; of 35 million training images
_LOCK_SECONDS = 60.0
# What using values of another kind than expected may raise.
_WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_PAYLOAD = re.compile(r"(detector|state)-[0-9a-f]{16}\.(xml|bin|npz)")
_ROLES = {".xml": "detector", ".bin": "detector", ".npz": "state"}
_STALE = 24 * 3600  # seconds after which an unfinished save is taken for a crashed one


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
                raise ModelError(f"{name} is no {kind.__name__}: {getattr(self, name)!r}.")
        deviations = self.parity.get("deviation", {})
        if not isinstance(deviations, dict) or not all(
            isinstance(value, (int, float)) for value in deviations.values()
        ):
            raise ModelError(f"parity holds numbers by output. Received: {deviations!r}.")
        sets = self.training.get("sets", [])
        if not isinstance(sets, list) or not all(isinstance(entry, dict) for entry in sets):
            raise ModelError(f"training holds a list of sets of images. Received: {sets!r}.")
        if not all(isinstance(name, str) for name in self.outputs):
            raise ModelError(f"outputs are names. Received: {self.outputs!r}.")

    @property
    def learnt(self) -> frozenset[str]:
        """Digests of the images that training has seen, see `images.image_digest`."""
        sets = self.training.get("sets", [])
        return frozenset(digest for entry in sets for digest in entry.get("digests", []))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; keys that a later version added are passed over."""
        known = {entry.name: values[entry.name] for entry in fields(cls)}
        known["plan"] = Plan.from_dict(known["plan"])
        known["calibration"] = Calibration.from_dict(known["calibration"])
        return cls(**known)


@dataclass(frozen=True)
class StoredModel:
    """A model directory that was checked and opened.

    Parameters
    ----------
    directory : Path
        Where it is.
    manifest : Manifest
        What it is.
    files : dict
        Name of each payload file -> {"sha256", "size"}.
    digest : str
        Of the manifest, and through its hashes of everything; names the model in records.
    engine : Engine
        The model, ready to run.
    replaced : str
        Of a model that was just saved: which one it took the place of, in words.
    """

    directory: Path
    manifest: Manifest
    files: dict[str, dict[str, Any]]
    digest: str
    engine: Engine
    replaced: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied by its directory: whoever gets it opens it again."""
        return _open_again, (os.path.abspath(self.directory), self.digest)

    def state(self) -> dict[str, NDArray[Any]]:
        """Read what training needs to go on; checked like everything else."""
        name = next(name for name in self.files if name.endswith(".npz"))
        path = self.directory / name
        _check_file(path, self.files[name])
        try:
            with np.load(path, allow_pickle=False) as arrays:
                # numpy before 2.2 stored an array of this name beside the others.
                return {key: arrays[key] for key in arrays.files if key != "allow_pickle"}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise _damaged(self.directory, f"{name} cannot be read ({error})") from error

    def detector_state(self) -> dict[str, NDArray[Any]]:
        """The detector's own part of the state."""
        return {
            name: array
            for name, array in self.state().items()
            if name not in (SCORES, MAXIMA, RAISED) and not name.startswith(LATER)
        }

    @property
    def detector(self) -> str:
        """Names the graph: the same raw scores for the same images, whatever the limits are."""
        return next(Path(name).stem for name in self.files if name.endswith(".xml"))

    def good_scores(self, *, of_training: bool = False) -> GoodScores:
        """What the good images scored that the limits of good come from.

        Parameters
        ----------
        of_training : bool
            Those of the training, also where a later calibration took others.

        Raises
        ------
        ModelError
            The model was saved by a version that did not keep them.
        """
        state = self.state()
        for prefix in ("",) if of_training else (LATER, ""):
            some = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            crossed = not prefix and "folds" in self.manifest.training
            with contextlib.suppress(KeyError):
                try:
                    return GoodScores.from_arrays(some, cross_fitted=crossed).as_judged
                except ValueError as error:
                    raise _damaged(self.directory, str(error)) from error
        raise ModelError(
            f"The model in {self.directory} was saved by a version that did not keep the scores of "
            "its good images. Calibrate it with good images first, or train it anew."
        )

    def with_limits(
        self,
        calibration: Calibration,
        directory: Path,
        good: GoodScores | None = None,
    ) -> StoredModel:
        """Save the model with other limits, and load it.

        Parameters
        ----------
        calibration : Calibration
            The limits.
        directory : Path
            Where; a model there is replaced, and this may be the one.
        good : GoodScores, optional
            What they come from, if that is other than before: scores of the training, or those of
            images from elsewhere, which are kept next to them.

        Raises
        ------
        ModelError, OutputError
            The model is damaged, or cannot be saved.
        """
        self.verify()
        state = self.state()
        if good is not None:
            state = {name: array for name, array in state.items() if not name.startswith(LATER)}
            if good.digests:
                state |= {LATER + name: array for name, array in good.arrays().items()}
        with ModelWriter(directory) as writer:
            for name in self.files:
                if not name.endswith(".npz"):
                    shutil.copyfile(self.directory / name, writer.xml.with_suffix(name[-4:]))
            writer.write_state(state)
            writer.commit(replace(self.manifest, calibration=calibration))
        return load(directory)

    def verify(self) -> None:
        """Check the hash of every file; ModelError names the first that is not as it was saved."""
        for name, entry in self.files.items():
            _check_file(self.directory / name, entry)


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
        manifest = Manifest.from_dict(_read_manifest(directory))
    except (AnomalyADError, *_WRONG_VALUES):
        return "one that cannot be read"
    images = len(manifest.learnt)
    return f"{manifest.plan.method}, trained {manifest.created[:10]} on {images} images"


# -------------------------------------------------------------------------------- loading


def load(directory: str | os.PathLike[str]) -> StoredModel:
    """Open a model directory.

    The format, the manifest's digest, and location, size and hash of every file that is going to
    be opened are checked before anything is built from them.

    Raises
    ------
    ModelError
        There is no model there, it is damaged, or a later version wrote it.
    """
    directory = Path(directory)
    for attempt in range(3):
        data = _read_manifest(directory)
        try:
            return _open(directory, data)
        except ModelError:
            # Another process may have replaced the model between two of our reads.
            if attempt == 2 or _read_manifest(directory) == data:
                raise
    raise AssertionError("unreachable")


def _open_again(directory: str, digest: str) -> StoredModel:
    stored = load(directory)
    if stored.digest != digest:
        raise ModelError(
            f"The model in {directory} was replaced after this one was handed over. Load it anew: "
            "it may judge otherwise."
        )
    return stored


def _open(directory: Path, data: dict[str, Any]) -> StoredModel:
    try:
        manifest = Manifest.from_dict(data)
        files = _check_names(data["files"])
    except (
        AnomalyADError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise _damaged(directory, f"its manifest cannot be used ({reason})") from error
    for name in files:
        if not name.endswith(".npz"):
            _check_file(directory / name, files[name])
    xml = next(name for name in files if name.endswith(".xml"))
    engine = Engine(directory / xml, manifest.plan.precision)
    if sorted(engine.output_names) != sorted(manifest.outputs):
        raise _damaged(directory, f"its outputs are not {manifest.outputs}")
    if engine.input_shape != manifest.plan.spec.shape:
        raise _damaged(directory, f"its input is not {manifest.plan.spec.shape}")
    return StoredModel(directory, manifest, files, data["digest"], engine)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise _damaged(directory, "its manifest is too large")
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{directory} holds no model: there is no {MANIFEST} in it. Name the directory that "
            "train() made, for example Models/model."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(directory, f"its manifest cannot be read ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise _damaged(directory, "its manifest states no format")
    if data["format"] > FORMAT:
        raise ModelError(
            f"{directory} has format {data['format']}; this version of anomaly_ad reads formats "
            f"up to {FORMAT}. Update it with: python -m pip install --upgrade anomaly-ad"
        )
    if data["format"] != FORMAT or data.get("digest") != _digest(data):
        raise _damaged(directory, "its manifest was changed after it was saved")
    return data


def _check_names(files: Any) -> dict[str, dict[str, Any]]:
    if sorted(Path(name).suffix for name in files) != [".bin", ".npz", ".xml"]:
        raise ModelError(f"a model has one .xml, one .bin and one .npz file, not {sorted(files)}")
    for name, entry in files.items():
        # The pattern has no separator, so no name can lead out of the directory.
        if not _PAYLOAD.fullmatch(name):
            raise ModelError(f"{name!r} is no name of a file of a model")
        if not isinstance(entry["sha256"], str) or not isinstance(entry["size"], int):
            raise ModelError(f"the entry of {name} is incomplete")
    return dict(files)


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    if os.path.islink(path) or not os.path.isfile(path):
        raise _damaged(path.parent, f"{path.name} is missing")
    try:
        whole = path.stat().st_size == entry["size"] and _sha256(path) == entry["sha256"]
    except OSError as error:
        raise ModelError(
            f"The model in {path.parent} cannot be opened: {path.name} cannot be read "
            f"({error.strerror}). Check that you may read it."
        ) from error
    if not whole:
        raise _damaged(path.parent, f"{path.name} is not as it was saved")


def _damaged(directory: Path, reason: str) -> ModelError:
    return ModelError(
        f"The model in {directory} is damaged: {reason}. Restore the directory from a copy, or "
        "train the model anew."
    )


# --------------------------------------------------------------------------------- saving


class ModelWriter:
    """Writes a model directory: files go into `folder` first, `commit` puts them in place.

    Leaving the context without a commit removes what was written and leaves the directory as it
    was.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.replaced = ""  # the model that the commit took the place of, in words

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for old in self.directory.glob(".unfinished-*"):
                if time.time() - old.stat().st_mtime > _STALE:
                    shutil.rmtree(old, ignore_errors=True)
            self.folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self.directory))
        except OSError as error:
            raise _cannot_save(self.directory, error) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, AnomalyADError):
            raise _cannot_save(self.directory, error) from error

    @property
    def xml(self) -> Path:
        """Where the OpenVINO model goes; its weights lie beside it."""
        return self.folder / "detector.xml"

    def write_graph(self, model: ov.Model) -> None:
        """Write the OpenVINO model, its weights uncompressed."""
        try:
            ov.save_model(model, self.xml, compress_to_fp16=False)
        except RuntimeError as error:  # its word for a full disk
            raise OutputError(
                f"The model cannot be written to {self.folder} ({error}). Make room or choose "
                "another save_path; a model that was there before is unchanged."
            ) from error

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Write what training needs to go on."""
        odd = [name for name, array in state.items() if np.asarray(array).dtype.hasobject]
        if odd:  # numpy would pickle them
            raise TypeError(f"the state holds objects: {', '.join(odd)}")
        arrays: dict[str, Any] = dict(state)
        np.savez(self.folder / "state.npz", **arrays)

    def commit(self, manifest: Manifest) -> None:
        """Put the files in place, then the manifest in one step; then remove the old files."""
        sources = [self.folder / f"{_ROLES[s]}{s}" for s in (".xml", ".bin", ".npz")]
        # One hash for .xml and .bin, since OpenVINO finds the one by the name of the other.
        hashes = {path.suffix: _sha256(path) for path in sources}
        graph = hashlib.sha256((hashes[".xml"] + hashes[".bin"]).encode()).hexdigest()
        with self._alone():
            self._replace(manifest, sources, hashes, graph)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time: what one puts in place another must not remove as old."""
        place = Path(os.path.abspath(self.directory))
        lock = FileLock(place.with_name(f".{place.name}.lock"), timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"Another process has been saving a model in {self.directory} for "
                f"{_LOCK_SECONDS:.0f} seconds. Try again when it has ended, or choose another "
                "save_path."
            ) from error
        except (NotImplementedError, OSError):  # a file system without locks
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def _replace(
        self, manifest: Manifest, sources: list[Path], hashes: dict[str, str], graph: str
    ) -> None:
        files = {}
        for path in sources:
            stem = hashes[".npz"] if path.suffix == ".npz" else graph
            target = self.directory / f"{_ROLES[path.suffix]}-{stem[:16]}{path.suffix}"
            files[target.name] = {"sha256": hashes[path.suffix], "size": path.stat().st_size}
            _sync(path)
            os.replace(path, target)
        data = {"format": FORMAT, **manifest.to_dict(), "files": files}
        data["digest"] = _digest(data)
        self.replaced = summary_of(self.directory)
        fresh = self.folder / MANIFEST
        fresh.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        if fresh.stat().st_size > _MAX_MANIFEST:
            raise OutputError("The manifest would be too large to be read again. Train on fewer.")
        _sync(fresh)
        old = self._named_before()
        _sync(self.directory)
        os.replace(fresh, self.directory / MANIFEST)
        _sync(self.directory)
        for name in (old | self._crashed()) - files.keys():
            (self.directory / name).unlink(missing_ok=True)

    def _crashed(self) -> set[str]:
        """Files that a save put in place long ago; if no manifest names them, it has crashed."""
        named = [path for path in self.directory.iterdir() if _PAYLOAD.fullmatch(path.name)]
        return {path.name for path in named if time.time() - path.stat().st_mtime > _STALE}

    def _named_before(self) -> set[str]:
        """The files of the model that is about to be replaced."""
        try:
            return set(_check_names(_read_manifest(self.directory)["files"]))
        except (AnomalyADError, *_WRONG_VALUES):  # none, or one that cannot be read
            return set()


def _cannot_save(directory: Path, error: OSError) -> OutputError:
    return OutputError(
        f"The model cannot be saved in {directory} ({error.strerror or error}). Make room or "
        "choose another save_path; a model that was there before is unchanged."
    )


def _digest(data: Mapping[str, Any]) -> str:
    content = {name: value for name, value in data.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the system write a file or a folder's list of names to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders, and need not
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

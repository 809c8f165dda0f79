"""A model that was saved: opened, read, and saved with other limits.

No pickle, and nothing is imported by a name read from a file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnomalyADError, ModelError
from ..runtime import Device, Engine
from .calibration import FEW_FOLDS, HELD_OUT, Calibration, GoodScores
from .manifest import WRONG_VALUES, Manifest, check_file, check_names, damaged, read_manifest
from .writer import ModelWriter

# Before the names of scores in the state file that a later calibration has put there, next to those
# of the training.
LATER = "calibration_"


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
    shown : str
        Where its limits were shown to hold on a device that they are not from: how, in words.
    """

    directory: Path
    manifest: Manifest
    files: dict[str, dict[str, Any]]
    digest: str
    engine: Engine
    replaced: str = ""
    shown: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied by its directory: whoever gets it opens it again."""
        return _open_again, (os.path.abspath(self.directory), self.digest, self.engine.device)

    def state(self) -> dict[str, NDArray[Any]]:
        """Read what training needs to go on; checked like everything else."""
        name = next(name for name in self.files if name.endswith(".npz"))
        path = self.directory / name
        check_file(path, self.files[name])
        try:
            with np.load(path, allow_pickle=False) as arrays:
                # numpy before 2.2 stored an array of this name next to the others.
                return {key: arrays[key] for key in arrays.files if key != "allow_pickle"}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise damaged(self.directory, f"{name} cannot be read ({error})") from error

    def detector_state(self) -> dict[str, NDArray[Any]]:
        """The detector's own part of the state."""
        return {
            name: array
            for name, array in self.state().items()
            if name not in HELD_OUT and not name.startswith(LATER)
        }

    @property
    def detector(self) -> str:
        """Names the graph: the same raw scores for the same images, whatever the limits are."""
        return next(Path(name).stem for name in self.files if name.endswith(".xml"))

    @property
    def is_cross_fitted(self) -> bool:
        """Whether the training's good images were scored by fits on clearly fewer images."""
        return self.manifest.training.get("folds", FEW_FOLDS + 1) <= FEW_FOLDS

    def good_scores(self, *, of_training: bool = False) -> GoodScores:
        """What the good images scored that the decision limits come from.

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
            crossed = not prefix and self.is_cross_fitted
            with contextlib.suppress(KeyError):
                try:
                    found = GoodScores.from_arrays(some, cross_fitted=crossed).with_margin
                    return found if prefix else replace(found, n_kept=self.manifest.n_kept)
                except ValueError as error:
                    raise damaged(self.directory, str(error)) from error
        raise ModelError(
            f"The model in {self.directory} was saved by a version that did not keep the scores of "
            "its good images. Calibrate it with good images first, or train it again."
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
        return load(directory).on(self.engine.device)

    def on(self, device: Device) -> StoredModel:
        """The model on another device, or with other threads; see `is_at_home`.

        Raises
        ------
        OptionError
            There is no such device.
        ModelError
            The model is damaged, or has been replaced and is no longer there.
        """
        if device == self.engine.device:
            return self
        xml = next(name for name in self.files if name.endswith(".xml"))
        for name in self.files:
            if not name.endswith(".npz"):
                check_file(self.directory / name, self.files[name])
        engine = Engine(self.directory / xml, self.manifest.plan.precision, device)
        return replace(self, engine=engine, shown="")

    @property
    def is_at_home(self) -> bool:
        """Whether it runs where its limits were taken: on this kind of device.

        Elsewhere the arithmetic may differ, and what the limits promise was not shown there.
        """
        return self.engine.device.kind == self.manifest.calibration.device

    def verify(self) -> None:
        """Check the hash of every file; ModelError names the first that is not as it was saved."""
        for name, entry in self.files.items():
            check_file(self.directory / name, entry)


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
        data = read_manifest(directory)
        try:
            return _open(directory, data)
        except ModelError:
            # Another process may have replaced the model between two of our reads.
            if attempt == 2 or read_manifest(directory) == data:
                raise
    raise AssertionError("unreachable")


def _open_again(directory: str, digest: str, device: Device) -> StoredModel:
    stored = load(directory).on(device)
    if stored.digest != digest:
        raise ModelError(
            f"The model in {directory} was replaced after this one was handed over. Load it again: "
            "its scores may be others."
        )
    return stored


def _open(directory: Path, data: dict[str, Any]) -> StoredModel:
    try:
        manifest = Manifest.from_dict(data)
        files = check_names(data["files"])
    except (AnomalyADError, *WRONG_VALUES) as error:
        reason = f"{type(error).__name__}: {error}"
        raise damaged(directory, f"its manifest cannot be used ({reason})") from error
    for name in files:
        if not name.endswith(".npz"):
            check_file(directory / name, files[name])
    xml = next(name for name in files if name.endswith(".xml"))
    engine = Engine(directory / xml, manifest.plan.precision)
    if sorted(engine.output_names) != sorted(manifest.outputs):
        raise damaged(directory, f"its outputs are not {manifest.outputs}")
    if engine.view_shape != manifest.plan.framing.view_shape:
        raise damaged(directory, f"its input is not {manifest.plan.framing.view_shape}")
    return StoredModel(directory, manifest, files, data["digest"], engine)

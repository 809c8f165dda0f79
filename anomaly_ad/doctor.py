"""What an installation has, what it lacks, and the command for each: `anomaly-ad doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ._version import __version__
from .support import cpu_count

PACKAGE = "anomaly-ad"
# For those who build the package, and not for those who use it.
_NOT_OFFERED = ("test", "dev", "docs")
_ENOUGH = 2_000_000_000  # bytes free for a training

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(\[[\w,-]+\])?\s*(?P<bounds>[^;]*?)\s*(;.*extra\s*==\s*['\"](?P<extra>\w+)['\"])?"
)


@dataclass(frozen=True)
class Extra:
    """An extra of the package.

    Parameters
    ----------
    name : str
        As pip takes it.
    missing : tuple of str
        Packages of it that are not installed, or too old.
    """

    name: str
    missing: tuple[str, ...]

    @property
    def command(self) -> str:
        """What installs it."""
        return f'python -m pip install "{PACKAGE}[{self.name}]"'


@dataclass(frozen=True)
class Folder:
    """A folder that is written to.

    Parameters
    ----------
    purpose : str
        What for.
    path : str
        Which.
    free : int
        Bytes.
    is_writable : bool
        Whether a file could be made there.
    """

    purpose: str
    path: str
    free: int
    is_writable: bool


@dataclass(frozen=True)
class Diagnosis:
    """What was found. Its `str` is for people.

    Parameters
    ----------
    versions : dict of str to str
        Of this package, Python, the system, and what is installed of what is needed.
    devices : dict of str to str
        What OpenVINO can run a model on: name -> what it is.
    processors : dict of str to int
        "machine", and "usable": what the affinity and the control groups of a container leave.
    folders : tuple of Folder
        Where models, results and temporary files go.
    extras : tuple of Extra
        Those of the package.
    missing : tuple of str
        Packages that every use needs and that are not installed, or too old.
    problems : tuple of str
        What must be put right, in words.
    """

    versions: dict[str, str]
    devices: dict[str, str]
    processors: dict[str, int]
    folders: tuple[Folder, ...]
    extras: tuple[Extra, ...]
    missing: tuple[str, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def __str__(self) -> str:
        machine, usable = self.processors["machine"], self.processors["usable"]
        share = "" if usable == machine else f" of {machine} (affinity, or share of a container)"
        lines = ["Versions"]
        lines += [f"  {name} {version}" for name, version in self.versions.items()]
        lines += ["Devices", *(f"  {name}: {words}" for name, words in self.devices.items())]
        lines += ["Processors", f"  {usable}{share}", "Folders"]
        for folder in self.folders:
            state = f"{folder.free / 1e9:.1f} GB free"
            if not folder.is_writable:
                state += ", cannot be written"
            lines.append(f"  {folder.purpose}: {folder.path}, {state}")
        lines.append("Extras")
        for extra in self.extras:
            state = "installed"
            if extra.missing:
                state = f"lacks {', '.join(extra.missing)}: {extra.command}"
            lines.append(f"  {extra.name}: {state}")
        lines += ["Problems", *(f"  {each}" for each in self.problems or ["none"])]
        return "\n".join(lines)


def diagnose(models: Path = Path("Models"), output: Path = Path("Output")) -> Diagnosis:
    """Look at the installation and the machine; nothing is left behind.

    Parameters
    ----------
    models, output : Path
        Where models and results are going to be saved; they need not be there yet.
    """
    needed, extras = _lacking()
    folders = tuple(
        Folder(purpose, str(path), shutil.disk_usage(place).free, _is_writable(place))
        for purpose, path in (
            ("models", models),
            ("results", output),
            ("temporary files", Path(tempfile.gettempdir())),
        )
        for place in [_existing(path)]
    )
    devices, problems = _devices()
    if needed:
        problems.append(f"{', '.join(needed)}: run python -m pip install --upgrade {PACKAGE}")
    for folder in folders:
        if not folder.is_writable:
            advice = "Set TMPDIR to another" if folder.purpose.startswith("temp") else "Use another"
            problems.append(f"{folder.path} cannot be written. {advice} folder.")
        elif folder.free < _ENOUGH:
            problems.append(
                f"{folder.path} has {folder.free / 1e9:.1f} GB free; a training may need "
                f"{_ENOUGH / 1e9:.0f} GB. Make room."
            )
    return Diagnosis(
        versions=dict(_versions()),
        devices=devices,
        processors={"machine": os.cpu_count() or 1, "usable": cpu_count()},
        folders=folders,
        extras=extras,
        missing=needed,
        problems=tuple(dict.fromkeys(problems)),
    )


def _devices() -> tuple[dict[str, str], list[str]]:
    try:
        from .runtime.devices import available

        found = dict(available())
    except (ImportError, RuntimeError) as error:
        return {}, [f"OpenVINO does not start: {error}"]
    return found, [] if found else ["OpenVINO has found no device: reinstall it with pip."]


def _versions() -> Iterator[tuple[str, str]]:
    yield PACKAGE, __version__
    yield "Python", platform.python_version()
    yield "system", platform.platform()
    for name in sorted({each.name for each in _requirements()} | {PACKAGE}):
        if name != PACKAGE and (version := _version(name)) is not None:
            yield name, version


@dataclass(frozen=True)
class _Requirement:
    name: str
    least: str | None
    extra: str | None


def _requirements() -> list[_Requirement]:
    """What this package says that it needs; nothing where it runs from a folder of sources."""
    try:
        listed = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for line in listed:
        match = _REQUIREMENT.fullmatch(line.strip())
        if match and match["extra"] not in _NOT_OFFERED:
            least = re.search(r">=\s*([\d.]+)", match["bounds"])
            found.append(_Requirement(match["name"], least and least[1], match["extra"]))
    return found


def _lacking() -> tuple[tuple[str, ...], tuple[Extra, ...]]:
    """Packages that are missing of those always needed, and by extra."""
    by_extra: dict[str | None, list[str]] = defaultdict(list)
    for each in _requirements():
        version = _version(each.name)
        lacking = by_extra[each.extra]
        if version is None:
            lacking.append(each.name)
        elif each.least is not None and _numbers(version) < _numbers(each.least):
            lacking.append(f"{each.name} {each.least} ({version} is installed)")
    extras = tuple(Extra(name, tuple(some)) for name, some in by_extra.items() if name is not None)
    return tuple(by_extra[None]), extras


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", re.split(r"[a-z+]", version)[0])]


def _existing(path: Path) -> Path:
    """The path, or the folder that it would be made in."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

"""Known data sets, as people have downloaded them, laid out as this package reads folders.

Of each data set: ``train/good``, ``test/good``, ``test/<defect>`` and ``ground_truth/<defect>``,
where a mask is called ``<name>_mask.png``. Nothing is downloaded.
"""

from __future__ import annotations

import csv
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from ..errors import AnomalyADError, DataError, OptionError, OutputError, PathError
from ..images import PathLike, check_path, read_image, split
from ..images.formats import SUFFIXES
from ..images.masks import read_mask
from ..support import bar, printable, say

GOOD = "good"
HELD_OUT = 0.2  # of the good images, where a data set has no split
_LICENCE = re.compile(r"(licen[cs]e|copying)", re.IGNORECASE)
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error)
_LINES = 3  # of a licence's file that are shown


@dataclass(frozen=True)
class Item:
    """An image of a data set.

    Parameters
    ----------
    image : Path
        Its file.
    target : PurePosixPath
        Folder that it belongs into: ``bottle/test/crack``.
    name : str
        Its new name, without a suffix; unique in the folder.
    mask : callable or None
        Gives the mask, bool (height, width).
    """

    image: Path
    target: PurePosixPath
    name: str
    mask: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set that is known.

    Parameters
    ----------
    title, licence : str
        For people. The licence is the one that its authors name.
    items : callable
        Folder, folder of images or None -> its images; DataError if it is another.
    """

    title: str
    licence: str
    items: Callable[[Path, Path | None], Iterator[Item]]


@dataclass(frozen=True)
class LaidOut:
    """What was laid out.

    Parameters
    ----------
    folder : Path
        Where.
    counts : dict of str to int
        Images in each folder, such as "bottle/train/good".
    n_masks : int
        Masks.
    """

    folder: Path
    counts: dict[str, int]
    n_masks: int

    def __str__(self) -> str:
        lines = [f"{count:6}  {name}" for name, count in sorted(self.counts.items())]
        lines.append(f"{self.n_masks:6}  masks")
        return "\n".join(map(printable, lines))


def layout(
    name: str, source: PathLike, target: PathLike, *, images: PathLike | None = None
) -> LaidOut:
    """Lay out a data set that was downloaded.

    Images are copied, masks written as PNG of 0 and 255. All is there or nothing is. The licence is
    said first: the one that is known, and what a file in the data set says.

    Parameters
    ----------
    name : str
        One of `DATA_SETS`.
    source : path
        The archive (zip, tar, tar.gz, tar.xz), the folder that it was unpacked into, or the folder
        of one of its parts; of Lookout for Vision the manifest, or a folder of manifests.
    target : path
        A folder that is not there yet.
    images : path, optional
        Of Lookout for Vision: the folder of the images and masks, which are found by their names.

    Raises
    ------
    OptionError
        There is no such data set.
    PathError, DataError
        The source is not there, or is something else.
    OutputError
        The target is there, or cannot be written.
    """
    known = data_set(name)
    root, goal = check_path(source, "The data set"), check_path(target, "The folder to make")
    if os.path.lexists(goal):
        raise OutputError(f"{goal} is there already. Name a folder that is not.")
    others = None if images is None else check_path(images, "The folder of images")
    if others is not None and not others.is_dir():
        raise PathError(f"{others} is not a folder. Name the folder of the images.")
    try:
        goal.absolute().parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".layout-", dir=goal.absolute().parent))
    except OSError as error:
        raise OutputError(f"{goal} cannot be made ({error.strerror}).") from error
    say(f"{known.title}. Licence: {known.licence}")
    try:
        with _opened(root, fresh.parent) as folder:
            for line in _licences(folder):
                say(line)
            found = _write([*known.items(folder, others)], fresh, goal)
        fresh.chmod(0o755)
        os.replace(fresh, goal)
    except AnomalyADError:
        raise
    except OSError as error:
        raise OutputError(f"{goal} cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return found


def data_set(name: str) -> DataSet:
    """The data set of that name; OptionError lists them."""
    try:
        return DATA_SETS[name]
    except (KeyError, TypeError):
        raise OptionError(
            f"There is no data set {name!r}. Known: {', '.join(DATA_SETS)}."
        ) from None


def _licences(folder: Path) -> Iterator[str]:
    """What files in the data set say of its licence."""
    for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if file.is_file() and _LICENCE.search(file.name) and file.stat().st_size < 2**20:
            text = file.read_text(encoding="utf-8", errors="replace").split("\n")
            told = [line.strip() for line in text if line.strip()][:_LINES]
            yield f"{file.relative_to(folder)}: {' '.join(told)}"


def _write(items: list[Item], fresh: Path, goal: Path) -> LaidOut:
    counts: Counter[str] = Counter()
    n_masks = 0
    taken: set[str] = set()
    if not items:
        raise DataError("No image of this data set was found there.")
    with bar(len(items), "Laying out") as step:
        for item in items:
            place = item.target / (item.name + item.image.suffix.lower())
            if not _stays_below(str(place)):
                raise DataError(f"{item.image} would become {place}, which leads out of {goal}.")
            key = str(item.target / item.name).lower()  # masks have no suffix of the image
            if key in taken:
                raise DataError(f"Two images would become {place}: {item.image} is the second.")
            taken.add(key)
            mask = None
            if item.mask is not None:
                try:
                    mask = item.mask()
                except AnomalyADError as error:
                    raise DataError(f"The mask of {item.image} cannot be used: {error}") from error
            copy = fresh / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item.image, copy)
            counts[str(item.target)] += 1
            if mask is not None:
                kind = item.target.name
                folder = fresh / item.target.parent.parent / "ground_truth" / kind
                folder.mkdir(parents=True, exist_ok=True)
                data = cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
                (folder / f"{item.name}_mask.png").write_bytes(data)
                n_masks += 1
            step("")
    return LaidOut(goal, dict(counts), n_masks)


# ---------------------------------------------------------------------------------- archives


class _opened:  # noqa: N801 - reads as a word
    """A folder or a file as it is, or the contents of an archive, for a while, in a place."""

    def __init__(self, source: Path, place: Path) -> None:
        self.source, self.place = source, place
        self._folder: str | None = None

    def __enter__(self) -> Path:
        if self.source.is_dir():
            return self.source
        if not self.source.is_file():
            raise PathError(f"{self.source} does not exist.")
        if not (zipfile.is_zipfile(self.source) or tarfile.is_tarfile(self.source)):
            return self.source
        self._folder = tempfile.mkdtemp(prefix=".layout-", dir=self.place)
        try:
            self._unpack(Path(self._folder))
        except BaseException:
            self.__exit__()
            raise
        return Path(self._folder)

    def __exit__(self, *exception: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _unpack(self, folder: Path) -> None:
        try:
            if zipfile.is_zipfile(self.source):
                with zipfile.ZipFile(self.source) as archive:
                    for entry in archive.infolist():
                        if not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16):
                            self._check(entry.filename)
                            archive.extract(entry, folder)
            else:
                with tarfile.open(self.source) as archive:
                    for member in archive:
                        if member.isfile():
                            self._check(member.name)
                            archive.extract(member, folder, filter="data")
        except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in another way
            raise DataError(f"{self.source} cannot be unpacked ({error}). Unpack it.") from error
        except _DAMAGED as error:
            raise DataError(f"{self.source} is a damaged archive ({error}).") from error
        except OSError as error:
            raise OutputError(
                f"{self.source} cannot be unpacked in {self.place} ({error.strerror}). Is there "
                "room?"
            ) from error

    def _check(self, name: str) -> None:
        if not _stays_below(name):
            raise DataError(f"{self.source} holds {name!r}, a name that leads out of it.")


# --------------------------------------------------------------------------------- data sets


def _images(folder: Path) -> list[Path]:
    """Image files in a folder, in the order of their names."""
    if not folder.is_dir():
        return []
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]


def _below(folder: Path, pattern: str) -> list[Path]:
    """Folders that a pattern finds, at any depth; those of a Mac's archive are none."""
    if not folder.is_dir():
        return []
    found = [path for path in [folder, *sorted(folder.rglob("*"))] if path.is_dir()]
    shape = re.compile(pattern)
    return [p for p in found if shape.fullmatch(p.name) and "__MACOSX" not in p.parts]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 ({error.reason}).") from error


def _another(what: str, folder: Path) -> DataError:
    return DataError(f"{folder} does not look like {what}. Name its archive or its folder.")


def _mask_file(file: Path) -> Callable[[], np.ndarray]:
    return lambda: read_mask(file)


def _split(files: list[Path]) -> Iterator[tuple[Path, str]]:
    """Good images with "train" or "test", where a data set says neither; the same each time."""
    count = round(HELD_OUT * len(files))
    if not count:
        yield from ((file, "train") for file in files)
        return
    kept, _ = split(len(files), [count], 0)
    learnt = set(kept.tolist())
    for index, file in enumerate(files):
        yield file, "train" if index in learnt else "test"


def _mvtec(root: Path, _: Path | None) -> Iterator[Item]:
    folders = [path.parent for path in _below(root, "train") if (path.parent / "test").is_dir()]
    if not folders:
        raise _another("MVTec AD", root)
    for folder in folders:
        name = PurePosixPath(folder.name if len(folders) > 1 or folder != root else ".")
        for part in ("train", "test"):
            for kind in sorted(p for p in (folder / part).iterdir() if p.is_dir()):
                for file in _images(kind):
                    mask = None
                    if part == "test" and kind.name != GOOD:
                        own = folder / "ground_truth" / kind.name / f"{file.stem}_mask.png"
                        mask = _mask_file(own) if own.is_file() else None
                    yield Item(file, name / part / kind.name, file.stem, mask)


def _visa(root: Path, _: Path | None) -> Iterator[Item]:
    tables = sorted(root.rglob("1cls.csv")) if root.is_dir() else []
    if not tables:
        raise _another("VisA with its split_csv/1cls.csv", root)
    home = tables[0].parent.parent
    rows = [*csv.DictReader(_text(tables[0]).splitlines())]
    columns = {"object", "split", "label", "image", "mask"}
    if not rows or not all(columns <= row.keys() and None not in row.values() for row in rows):
        raise _another("VisA: its 1cls.csv has the columns object, split, label, image, mask", root)
    for row in rows:
        image = _within(home, row["image"])
        kind = GOOD if row["label"] == "normal" else "anomaly"
        mask = _mask_file(_within(home, row["mask"])) if row["mask"] else None
        target = PurePosixPath(row["object"]) / row["split"] / kind
        yield Item(image, target, image.stem, mask)


def _stays_below(name: str) -> bool:
    """Whether a relative name stays below its folder, on any system."""
    parts = PurePosixPath(name.replace("\\", "/"))
    has_drive = re.match(r"[A-Za-z]:", name) is not None
    return not (parts.is_absolute() or ".." in parts.parts or has_drive)


def _within(home: Path, name: str) -> Path:
    """A file that a table names, in the folder of the data set."""
    if not _stays_below(name):
        raise DataError(f"The table names {name!r}, which leads out of {home}.")
    file = home / name
    if not file.is_file():
        raise DataError(f"The table names {name!r}, which is not in {home}. Unpack it as a whole.")
    return file


def _btad(root: Path, _: Path | None) -> Iterator[Item]:
    folders = [p.parent.parent for p in _below(root, "ok") if p.parent.name == "train"]
    if not folders:
        raise _another("BTAD", root)
    for folder in folders:
        name = PurePosixPath(folder.name if folder != root else ".")
        masks = {file.stem: file for file in _images(folder / "ground_truth" / "ko")}
        for part, kind, called in (
            ("train", "ok", GOOD),
            ("test", "ok", GOOD),
            ("test", "ko", "defect"),
        ):
            for file in _images(folder / part / kind):
                mask = masks.get(file.stem) if called != GOOD else None
                found = None if mask is None else _mask_file(mask)
                yield Item(file, name / part / called, file.stem, found)


def _kolektor(root: Path, _: Path | None) -> Iterator[Item]:
    parts = _below(root, r"kos\d+")
    if not parts:
        raise _another("KolektorSDD", root)
    good: dict[Path, list[tuple[Path, str]]] = {}
    for part in parts:
        for file in _images(part):
            if file.stem.endswith("_label"):
                continue
            label = part / f"{file.stem}_label.bmp"
            if not label.is_file():
                raise DataError(f"{file} has no {label.name} next to it.")
            name = f"{part.name}_{file.stem}"
            if read_mask(label).any():
                yield Item(file, PurePosixPath("test/defect"), name, _mask_file(label))
            else:
                good.setdefault(part, []).append((file, name))
    # All good images of an item are learnt from or tested on: they are of one part.
    for part, share in _split([*good]):
        for file, name in good[part]:
            yield Item(file, PurePosixPath(share) / GOOD, name)


def _kolektor2(root: Path, _: Path | None) -> Iterator[Item]:
    home = next((p.parent for p in _below(root, "train") if (p.parent / "test").is_dir()), None)
    files = [] if home is None else _images(home / "train")
    if home is None or not any(file.stem.endswith("_GT") for file in files):
        raise _another("KolektorSDD2", root)
    for part in ("train", "test"):
        for file in _images(home / part):
            if file.stem.endswith("_GT"):
                continue
            label = file.with_name(f"{file.stem}_GT.png")
            if not label.is_file():
                raise DataError(f"{file} has no {label.name} next to it.")
            if not read_mask(label).any():
                yield Item(file, PurePosixPath(part) / GOOD, file.stem)
            else:  # tested on, those of its training part as well: only good ones are learnt
                name = file.stem if part == "test" else f"train_{file.stem}"
                yield Item(file, PurePosixPath("test/defect"), name, _mask_file(label))


def _magnetic_tile(root: Path, _: Path | None) -> Iterator[Item]:
    kinds = _below(root, r"MT_\w+")
    free = [folder for folder in kinds if folder.name == "MT_Free"]
    if not free:
        raise _another("the magnetic tile data set", root)
    for folder in kinds:
        kind = folder.name.removeprefix("MT_").lower()
        files = [file for file in _images(folder / "Imgs") if file.suffix.lower() == ".jpg"]
        if folder in free:
            for file, share in _split(files):
                yield Item(file, PurePosixPath(share) / GOOD, file.stem)
            continue
        for file in files:
            label = file.with_suffix(".png")
            mask = _mask_file(label) if label.is_file() else None
            yield Item(file, PurePosixPath("test") / kind, file.stem, mask)


# -------------------------------------------------------------------------- Lookout for Vision


def _lookout(root: Path, images: Path | None) -> Iterator[Item]:
    if images is None:
        raise OptionError(
            "The service has ended, so its images are looked for on your disk: name their folder "
            "with images (--images DIR)."
        )
    files = [root] if root.is_file() else _manifests(root)
    if not files:
        raise _another("a manifest (JSON Lines) or a folder of manifests", root)
    index: dict[str, list[Path]] = {}
    for file in sorted(images.rglob("*")):
        if file.is_file():
            index.setdefault(file.name, []).append(file)
    good: list[tuple[Path, str, Path]] = []
    seen: set[Path] = set()
    for file in files:
        for number, line in enumerate(_text(file).splitlines(), 1):
            if not line.strip():
                continue
            where = f"{file.name}, line {number}"
            try:
                entry = json.loads(line)
                image = _matched(index, entry["source-ref"], where, images)
                label, about = _labelled_by(entry, "groundtruth/image-classification", where)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{where} is not a line of a Lookout manifest: {error}.") from error
            if image in seen:
                continue
            seen.add(image)
            if _is_normal(label, about, where):
                good.append((image, _unique(image, images), file))
                continue
            kind, mask = _marks(entry, index, where, images)
            yield Item(image, PurePosixPath("test") / kind, _unique(image, images), mask)
    yield from _good_of_lookout(good)


def _manifests(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix.lower() in (".manifest", ".jsonl", ".json")
    ]


def _good_of_lookout(good: list[tuple[Path, str, Path]]) -> Iterator[Item]:
    """In train and test as their manifests are called; else a fifth is tested on."""
    says = {file: _part_of(file.name) for _, _, file in good}
    if set(says.values()) == {"train", "test"}:
        for image, name, file in good:
            yield Item(image, PurePosixPath(says[file] or "train") / GOOD, name)
        return
    names = {image: name for image, name, _ in good}
    for image, share in _split([image for image, _, _ in good]):
        yield Item(image, PurePosixPath(share) / GOOD, names[image])


def _part_of(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower())
    return "test" if "test" in words else "train" if {"train", "training"} & {*words} else None


def _matched(index: Mapping[str, list[Path]], reference: str, where: str, folder: Path) -> Path:
    """The file that a reference names, by its name; by the folders above where some share it."""
    wanted = PurePosixPath(reference.removeprefix("s3://"))
    found = index.get(wanted.name, [])
    if not found:
        raise DataError(f"{where}: {wanted.name} is not in {folder}.")
    if len(found) > 1:

        def alike(file: Path) -> int:
            pairs = zip(reversed(file.parts), reversed(wanted.parts), strict=False)
            return next((n for n, (a, b) in enumerate(pairs) if a != b), len(wanted.parts))

        best = max(map(alike, found))
        found = [file for file in found if alike(file) == best]
    if len(found) > 1:
        raise DataError(
            f"{where}: {reference} may be {found[0]} or {found[1]}. Keep the folders as they were "
            "in the bucket, or name a folder with one of them."
        )
    return found[0]


def _labelled_by(entry: Mapping[str, Any], kind: str, where: str) -> tuple[Any, Mapping[str, Any]]:
    """The value whose metadata is of a kind, and the metadata."""
    for name, about in entry.items():
        if name.endswith("-metadata") and isinstance(about, dict) and about.get("type") == kind:
            own = name.removesuffix("-metadata")
            value = entry.get(own, entry.get(f"{own}-ref"))
            return value, about
    if kind.endswith("image-classification"):
        raise DataError(f"{where} has no label of an image: nothing of type {kind}.")
    return None, {}


def _is_normal(label: Any, about: Mapping[str, Any], where: str) -> bool:
    name = str(about.get("class-name", "")).lower()
    if name in ("normal", "anomaly"):
        return name == "normal"
    if label in (0, 1):
        return label == 0
    raise DataError(f"{where}: the label is neither normal nor anomaly: {label!r}, {name!r}.")


def _marks(
    entry: Mapping[str, Any], index: Mapping[str, list[Path]], where: str, folder: Path
) -> tuple[str, Callable[[], np.ndarray] | None]:
    """The kind of the defect, and its mask where there is one."""
    reference, about = _labelled_by(entry, "groundtruth/semantic-segmentation", where)
    if not reference:
        return "anomaly", None
    colours = about.get("internal-color-map", {}).values()
    grounds = [c["hex-color"] for c in colours if str(c.get("class-name")).upper() == "BACKGROUND"]
    marks = {
        str(c["class-name"]): c["hex-color"]
        for c in colours
        if str(c.get("class-name")).upper() != "BACKGROUND"
    }
    file = _matched(index, reference, where, folder)
    picture = np.asarray(read_image(file))
    ground = _rgb(grounds[0] if grounds else "#ffffff", where)
    areas = {
        name: int((picture == _rgb(code, where)).all(axis=2).sum()) for name, code in marks.items()
    }
    largest = max(areas, key=lambda name: areas[name], default="anomaly")
    kind = re.sub(r"[^\w.-]+", "_", largest).strip("._") or "anomaly"
    if kind.lower() == GOOD:
        kind = "anomaly"
    return kind, lambda: np.asarray((np.asarray(read_image(file)) != ground).any(axis=2))


def _rgb(code: str, where: str) -> np.ndarray:
    found = re.fullmatch(r"#?([0-9a-fA-F]{6})", str(code))
    if found is None:
        raise DataError(f"{where}: {code!r} is not a colour such as #2ca02c.")
    return np.frombuffer(bytes.fromhex(found[1]), np.uint8)


def _unique(image: Path, folder: Path) -> str:
    """Its path below the folder as one name, so that equal names in two folders stay apart."""
    parts = image.relative_to(folder).with_suffix("").parts
    return "_".join(parts)


_NONCOMMERCIAL = "CC BY-NC-SA 4.0: not for commercial use"
DATA_SETS: dict[str, DataSet] = {
    "mvtec": DataSet("MVTec AD (Bergmann et al. 2019)", _NONCOMMERCIAL, _mvtec),
    "visa": DataSet("VisA (Zou et al. 2022)", "CC BY 4.0", _visa),
    "btad": DataSet(
        "BTAD, beanTech (Mishra et al. 2021)",
        "none is named in the archive; ask its authors before commercial use",
        _btad,
    ),
    "kolektor": DataSet("KolektorSDD (Tabernik et al. 2019)", _NONCOMMERCIAL, _kolektor),
    "kolektor2": DataSet("KolektorSDD2 (Božič et al. 2021)", _NONCOMMERCIAL, _kolektor2),
    "magnetic-tile": DataSet(
        "Magnetic tile defects (Huang et al. 2018)",
        "none is named; ask its authors before commercial use",
        _magnetic_tile,
    ),
    "lookout": DataSet("A project of AWS Lookout for Vision", "your own images", _lookout),
}

"""Stage 1, images: find the files, read them, bring them to the model's size, stream them.

Inside this package an image is RGB uint8 of shape (H, W, 3); what a model sees is uint8 of shape
(height, width, channels), made from it by `ImageSpec.prepare` and by nothing else, in training, in
calibration and in prediction alike. Sizes are (height, width); boxes are xyxy in pixels.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import DataError, ImageError, ImageTooLargeError, OptionError, PathError
from .progress import printable
from .spool import Spool
from .threads import ordered_map

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MAX_PIXELS = 200_000_000  # a 150-megapixel camera passes, a decompression bomb does not
MIN_SIDE = 16  # pixels; less is no photograph of a part
_MAX_SCANS = 100  # of a progressive JPEG; usual are 10, and each is a pass over all pixels
_MAX_SEGMENTS = 10_000  # of a JPEG before the one that holds its size; usual are 10

# Folder names that say "not only good parts". Compared in lower case, whole or as a beginning.
_NOT_GOOD = frozenset(
    {"test", "tests", "testing", "ground_truth", "groundtruth", "ground-truth"}
    | {"mask", "masks", "bad", "ng", "nok"}
)
_NOT_GOOD_BEGINNINGS = ("defect", "anomal", "abnormal", "faulty", "reject", "broken")

PathLike = str | os.PathLike[str]
Image = NDArray[np.uint8]


# ------------------------------------------------------------------------------- one image


@dataclass(frozen=True)
class ImageSpec:
    """What a model takes: the size, the channels, and how a photograph is brought to them.

    Parameters
    ----------
    height, width : int
        Size of the model's input in pixels.
    channels : int
        1 (gray) or 3 (RGB).
    fit : {"stretch", "pad"}
        "stretch" resizes each axis by its own factor. "pad" keeps the aspect ratio, centres the
        photograph and repeats its border pixels outwards, so that no new edge appears.
    """

    height: int
    width: int
    channels: int
    fit: Literal["stretch", "pad"] = "stretch"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 16 <= value <= 8192:
                raise OptionError(
                    f"img_size is (height, width) in pixels, whole numbers from 16 to 8192. "
                    f"Received {name}={value!r}."
                )
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise OptionError(f"channels is 1 (gray) or 3 (RGB). Received: {self.channels!r}.")
        if not isinstance(self.fit, str) or self.fit not in ("stretch", "pad"):
            raise OptionError(f"fit is 'stretch' or 'pad'. Received: {self.fit!r}.")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    def prepare(self, image: Image) -> Image:
        """Bring a photograph to the model's size and channels.

        Shrinking averages (``INTER_AREA``, as uint8), enlarging interpolates linearly. Gray is
        computed after resizing, with the weights of ITU-R BT.601 (OpenCV's ``RGB2GRAY``).

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3)
            RGB.

        Returns
        -------
        ndarray of uint8, shape (height, width, channels)
            A new array.
        """
        left, top, width, height = self._placement(image.shape[:2])
        out = _resize(image, (height, width))
        if self.channels == 1:
            out = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)
        if (height, width) != self.size:
            bottom, right = self.height - height - top, self.width - width - left
            out = cv2.copyMakeBorder(out, top, bottom, left, right, cv2.BORDER_REPLICATE)
        out = out.reshape(self.shape)
        return out.copy() if np.may_share_memory(out, image) else out

    def boxes_to_original(
        self, boxes: NDArray[np.integer], image_size: tuple[int, int]
    ) -> NDArray[np.int32]:
        """Boxes at the model's scale -> boxes in the photograph.

        Parameters
        ----------
        boxes : ndarray of int, shape (N, 4)
            xyxy in pixels of the model's input; x2 and y2 are exclusive.
        image_size : (int, int)
            (height, width) of the photograph.

        Returns
        -------
        ndarray of int32, shape (M, 4)
            xyxy in pixels of the photograph, rounded outwards, within it. Boxes that lie wholly
            in the padding are left out, so M <= N.
        """
        left, top, width, height = self._placement(image_size)
        scaled = np.asarray(boxes, np.float64).reshape(-1, 4) - (left, top, left, top)
        scaled *= np.tile((image_size[1] / width, image_size[0] / height), 2)
        limits = np.tile((image_size[1], image_size[0]), 2)
        # The small constant keeps a box whose edge falls on a pixel's border from growing by
        # one pixel through rounding.
        scaled = np.hstack([np.floor(scaled[:, :2] + 1e-6), np.ceil(scaled[:, 2:] - 1e-6)])
        out = np.clip(scaled, 0, limits).astype(np.int32)
        return out[(out[:, 2] > out[:, 0]) & (out[:, 3] > out[:, 1])]

    def map_to_original(self, array: NDArray, image_size: tuple[int, int]) -> NDArray:
        """Resize a picture at the model's scale to the photograph's, without the padding.

        Parameters
        ----------
        array : ndarray, shape (height, width) or (height, width, C)
            An anomaly map or a picture of it; float32 or uint8.
        image_size : (int, int)
            (height, width) of the photograph.

        Returns
        -------
        ndarray, shape (image_size[0], image_size[1]) or with C behind
        """
        left, top, width, height = self._placement(image_size)
        return _resize(array[top : top + height, left : left + width], image_size)

    def _placement(self, image_size: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Where the photograph lies in the input: left, top, width, height in its pixels."""
        if self.fit == "stretch":
            return 0, 0, self.width, self.height
        scale = min(self.height / image_size[0], self.width / image_size[1])
        height = min(max(round(image_size[0] * scale), 1), self.height)
        width = min(max(round(image_size[1] * scale), 1), self.width)
        return (self.width - width) // 2, (self.height - height) // 2, width, height


def _resize(image: NDArray, size: tuple[int, int]) -> NDArray:
    # INTER_AREA averages only where both axes shrink, so axes that shrink go first.
    shrunk = (min(size[0], image.shape[0]), min(size[1], image.shape[1]))
    if shrunk != image.shape[:2]:
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def check_path(path: Any, name: str) -> Path:
    """A path as `Path`; OptionError names the argument if it is something else."""
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"{name} is a path. Received: {path!r}.")
    return Path(path)


def read_image(path: PathLike) -> Image:
    """Read a JPEG, PNG or BMP file as RGB.

    The kind of the file is taken from its content, not its name. The orientation that a camera
    noted (EXIF) is applied. Gray becomes three equal channels, a palette is resolved, an alpha
    channel is ignored, and of 16 bits the upper 8 are kept (a fixed mapping: 12-bit data in a
    16-bit file must be shifted up by whoever writes it). The number of pixels is read from the
    header and checked before anything is decoded.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.

    Raises
    ------
    PathError
        There is no such file, or it may not be read.
    ImageError
        The file is not an image of these kinds, is damaged or cut off, is smaller than
        `MIN_SIDE` pixels, or has more than `MAX_PIXELS`.
    """
    return decode_image(read_bytes(path), path)


def decode_image(data: bytes, name: object, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode the bytes of a JPEG, PNG or BMP file as RGB, as `read_image` does.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : object
        What messages call it.
    max_pixels : int
        More are not decoded.

    Raises
    ------
    ImageError
        As `read_image`; an `ImageTooLargeError` for more than `max_pixels`.
    """
    size = _size_in_header(data)
    if size is None:
        kind = "is empty" if not data else "is not a JPEG, PNG or BMP image"
        raise ImageError(f"{name}: the file {kind}. Replace it, or leave it out.")
    _check_size(size, name, max_pixels)
    # libjpeg fills a cut-off picture with gray and carries on; its last marker must be there.
    is_jpeg = data.startswith(b"\xff\xd8")
    complete = not is_jpeg or data.rfind(b"\xff\xd9") > len(data) // 2
    image: Image | None = None
    if complete and not (is_jpeg and data.count(b"\xff\xda") > _MAX_SCANS):
        try:
            image = _decode(data)
        except (cv2.error, MemoryError):
            image = None
    if image is None:
        raise ImageError(
            f"{name}: the image is damaged or cut off and cannot be decoded. "
            "Copy it again from where it came from, or leave it out."
        )
    return image


def read_mask(path: PathLike) -> NDArray[np.bool_]:
    """Read the mask of a defect: True where the gray value is above 127.

    In a mask that holds nothing but 0 and 1 it is True at 1.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    PathError, ImageError
        As `read_image`.
    """
    data = read_bytes(path)
    if (size := _size_in_header(data)) is not None:
        _check_size(size, path)
        gray = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if gray is not None:
            return np.asarray(gray > (0 if gray.max() == 1 else 127))
    raise ImageError(f"{path}: the mask is no image that can be read. Copy it again.")


def _decode(data: bytes) -> Image | None:
    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return decoded


def check_array(image: NDArray) -> Image:
    """Check an image that is handed over as an array, and bring it to (H, W, 3).

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        Gray, RGB or RGBA (the alpha channel is ignored). OpenCV reads BGR: convert it with
        ``cv2.cvtColor(image, cv2.COLOR_BGR2RGB)`` first.

    Raises
    ------
    ImageError
        Another type or shape, or a size out of bounds.
    """
    array = np.asarray(image)
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not is_image:
        raise ImageError(
            "An image array is uint8 in 0..255 with shape (H, W), (H, W, 1), (H, W, 3) or "
            f"(H, W, 4), RGB. Received {array.dtype} of shape {array.shape}. "
            "Convert it with: np.clip(image, 0, 255).astype(np.uint8)"
        )
    _check_size(array.shape[:2], "The array")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def read_bytes(path: PathLike) -> bytes:
    """A file's content; PathError if it cannot be had."""
    file = check_path(path, "An image file")
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise PathError(f"{path}: there is no such file. Check the path.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise PathError(
            f"{path}: the file cannot be read ({reason}). Check that it is a file and that you "
            "may read it."
        ) from error
    except ValueError as error:  # a path with a null byte
        raise PathError(f"{path!r} is not a path: {error}.") from error


def _check_size(size: tuple[int, ...], name: object, max_pixels: int = MAX_PIXELS) -> None:
    height, width = size
    if height * width > max_pixels:
        raise ImageTooLargeError(
            f"{name} says it has {width}x{height} pixels; at most {max_pixels:,} are decoded. "
            "Crop or shrink it first."
        )
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{name} has {width}x{height} pixels; at least {MIN_SIDE} on each side are needed."
        )


def _size_in_header(data: bytes) -> tuple[int, int] | None:
    """(height, width) as the header of a JPEG, PNG or BMP file says it; None for anything else."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if data.startswith(b"BM"):
            if struct.unpack_from("<I", data, 14)[0] == 12:  # the header of OS/2
                width, height = struct.unpack_from("<HH", data, 18)
            else:
                width, height = struct.unpack_from("<ii", data, 18)
            return abs(height), abs(width)  # a negative height stores the rows from the top
        if data.startswith(b"\xff\xd8"):
            return _size_in_jpeg(data)
    except struct.error:
        pass
    return None


def _size_in_jpeg(data: bytes) -> tuple[int, int] | None:
    for marker, position in _jpeg_segments(data):
        if _is_frame(marker):
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and position of each segment of a JPEG file, until one that is none."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker >> 8 != 0xFF:
            return
        if marker == 0xFFFF:  # a fill byte
            position += 1
            continue
        yield marker, position
        position += 2 + length


def _is_frame(marker: int) -> bool:
    """SOF0 ... SOF15 hold the size; C4, C8 and CC in that range are something else."""
    return 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)


def stored_mode(data: bytes) -> str:
    """How a file stores its pixels, by its header: "8 bit gray", "16 bit colour with alpha" ...

    "unknown" for what is no JPEG, PNG or BMP.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            kinds = {0: "gray", 2: "colour", 3: "palette"}
            kinds |= {4: "gray with alpha", 6: "colour with alpha"}
            return f"{data[24]} bit {kinds.get(data[25], 'unknown')}"
        if data.startswith(b"BM"):
            bits = struct.unpack_from("<H", data, 24 if data[14] == 12 else 28)[0]
            kind = "palette" if bits <= 8 else "colour with alpha" if bits == 32 else "colour"
            return f"8 bit {kind}"
        if data.startswith(b"\xff\xd8"):
            for marker, position in _jpeg_segments(data):
                if _is_frame(marker):
                    kind = "gray" if data[position + 9] == 1 else "colour"
                    return f"{data[position + 4]} bit {kind}"
    except (struct.error, IndexError):
        pass
    return "unknown"


def noted_orientation(data: bytes) -> int:
    """The orientation that a camera noted in a JPEG file (EXIF): 1 is upright, as is no note."""
    try:
        if data.startswith(b"\xff\xd8"):
            for marker, position in _jpeg_segments(data):
                if _is_frame(marker):
                    break
                if marker == 0xFFE1 and data[position + 4 : position + 10] == b"Exif\0\0":
                    return _orientation(data[position + 10 :])
    except struct.error:
        pass
    return 1


def _orientation(tiff: bytes) -> int:
    """The tag 0x0112 of the first directory of a TIFF structure."""
    order = "<" if tiff.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == 0x0112:
            return value
    return 1


# ----------------------------------------------------------------------------- image files


def find_images(folder: PathLike) -> list[Path]:
    """All image files in a folder and the folders in it, in the order of their names.

    Files count by their suffix, in any case: .jpg .jpeg .png .bmp. Hidden files and folders
    (names that begin with a dot) are passed over. Links are followed, loops are not.

    Raises
    ------
    PathError
        The folder, or one in it, does not exist or cannot be listed.
    """
    return list(_walk(Path(folder), frozenset()))


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return
    files, folders = _list_folder(folder)
    yield from files
    for child in folders:
        yield from _walk(child, above | {real})


def _list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files and the folders that lie in a folder, each sorted by name."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise PathError(f"{folder}: there is no such folder. Check the path.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise PathError(f"{folder}: the folder cannot be listed ({reason}).") from error
    except ValueError as error:  # a path with a null byte
        raise PathError(f"{str(folder)!r} is not a path: {error}.") from error
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [Path(folder, entry.name) for entry in shown if _is_folder(entry)]
    files = [
        Path(folder, entry.name)
        for entry in shown
        if not _is_folder(entry) and Path(entry.name).suffix.lower() in SUFFIXES
    ]
    return files, folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself
        return False


@dataclass(frozen=True)
class TrainingImages:
    """Files of good parts: the folder they were found in (None for a list) and their paths."""

    folder: Path | None
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        where = "a list of paths" if self.folder is None else printable(self.folder)
        return f"{len(self.paths)} images of good parts from {where}"


def find_training_images(path: PathLike | Iterable[PathLike]) -> TrainingImages:
    """Find the images of good parts, and refuse rather than learn from a defect.

    A list is taken as it is. In a folder:

    1. a folder in it named ``train`` (any case) is used instead of it, and nothing beside it;
    2. otherwise it must not hold a folder whose name says that it is not of good parts only
       (test, ground_truth, bad, defect..., and the like), nor have such a name itself;
    3. a folder in it named ``good`` is used instead of it, and nothing beside it;
    4. the images in it are taken or, where there are none, those of the folders in it, to which
       rule 2 applies again.

    Raises
    ------
    PathError
        The folder or a listed file does not exist.
    DataError
        No images are found, or some might show defects; the message lists what was found.
    """
    if not isinstance(path, (str, os.PathLike)):
        return TrainingImages(None, _check_list(path))
    folder = Path(path)
    if os.path.isfile(folder):
        raise DataError(
            f"{folder} is a file; training takes a folder of images of good parts, or a list "
            "of image files."
        )
    train = _children_named(folder, "train")
    if train:
        folder = train[0]
    _refuse_defects(folder, own_name=not train)
    good = _children_named(folder, "good")
    if good:
        folder = good[0]
    files, folders = _list_folder(folder)
    if not files:
        for child in folders:
            _refuse_defects_below(child)
        files = find_images(folder)
    if not files:
        raise DataError(
            f"{folder} holds no images. Expected files ending in {' '.join(SUFFIXES)} (any case), "
            "in the folder itself, in its folder 'good', or in a folder 'train' beside the test "
            "images."
        )
    return TrainingImages(folder, tuple(files))


def _check_list(paths: Iterable[PathLike]) -> tuple[Path, ...]:
    try:
        files = tuple(Path(path) for path in paths)
    except TypeError as error:
        raise OptionError(
            f"Training images are a folder or a list of paths. Received: {paths!r}."
        ) from error
    for file in files:
        if not os.path.isfile(file):
            raise PathError(
                f"{file}: there is no such file, or it may not be read. Check the list of "
                "training images."
            )
    if not files:
        raise DataError("The list of training images is empty; name the image files in it.")
    return files


def _children_named(folder: Path, name: str) -> list[Path]:
    children = [child for child in _list_folder(folder)[1] if child.name.lower() == name]
    if len(children) > 1:
        names = ", ".join(child.name for child in children)
        raise DataError(f"{folder} holds {names}: which one is meant? Name the folder itself.")
    return children


def _says_not_good(folder: Path) -> bool:
    name = folder.name.lower()
    return name in _NOT_GOOD or name.startswith(_NOT_GOOD_BEGINNINGS)


def _refuse_defects(folder: Path, *, own_name: bool) -> None:
    children = _list_folder(folder)[1]
    found = [child.name for child in children if _says_not_good(child)]
    if found:
        listed = ", ".join(sorted(child.name for child in children))
        raise DataError(
            f"{folder} must hold good parts only, but it holds the folder(s) "
            f"{', '.join(found)}, whose images may show defects (folders found: {listed}). "
            "Put the good images into a folder 'train' in it, or name the folder of good "
            "images itself."
        )
    if own_name and _says_not_good(folder.resolve()) and not _children_named(folder, "good"):
        raise DataError(
            f"By its name the folder {folder} does not hold good parts only. Name the folder of "
            "good images; if these are good, rename the folder or pass a list of its files."
        )


def _refuse_defects_below(folder: Path, above: frozenset[str] = frozenset()) -> None:
    real = os.path.realpath(folder)
    if real in above:
        return
    _refuse_defects(folder, own_name=False)
    for child in _list_folder(folder)[1]:
        _refuse_defects_below(child, above | {real})


def sample_sizes(paths: Sequence[Path], count: int = 32) -> list[tuple[int, int]]:
    """(height, width) of some of the images, spread evenly; those that cannot be read are left out.

    They are decoded, since a camera's note of the orientation may turn them.
    """
    chosen = [paths[index] for index in range(0, len(paths), -(-len(paths) // count))]
    return [size for size in ordered_map(_try_size, chosen) if size is not None]


def _try_size(path: Path) -> tuple[int, int] | None:
    try:
        height, width = read_image(path).shape[:2]
    except (ImageError, PathError):
        return None
    return height, width


# ---------------------------------------------------------------------------- many images


class ImageSet:
    """Prepared images in a temporary file, or in memory; re-iterable, in order.

    Iterating yields uint8 batches of shape (B, height, width, channels); indexing with integers or
    a slice gives those images as a new array. Use it as a context manager: leaving it removes the
    file.

    Parameters
    ----------
    items : Spool or ndarray of uint8, shape (N, height, width, channels)
        The images.
    indices : ndarray of int, optional
        Which of them, in which order; None for all.
    """

    BATCH = 32

    def __init__(
        self, items: Spool | NDArray[np.uint8], indices: NDArray[np.integer] | None = None
    ) -> None:
        self._items = items
        self._indices = np.arange(len(items)) if indices is None else np.asarray(indices)

    @classmethod
    def decode(
        cls, paths: Sequence[Path], spec: ImageSpec, step: Callable[[], None] = lambda: None
    ) -> Self:
        """Read, check and prepare all files, in threads.

        Parameters
        ----------
        paths : sequence of Path
            Image files.
        spec : ImageSpec
            What the model takes.
        step : callable, optional
            Called after each image, for a progress bar.

        Raises
        ------
        DataError
            Files cannot be read; the message lists every one of them.
        OutputError
            The temporary file does not fit on the disk.
        """
        spool = Spool(len(paths), spec.shape, np.uint8)
        try:
            broken: list[str] = []
            for index, image in enumerate(ordered_map(lambda p: _try_read(p, spec), paths)):
                if isinstance(image, str):
                    broken.append(image)
                else:
                    spool[index] = image
                step()
            if broken:
                listed = "\n  ".join(broken)
                raise DataError(
                    f"{len(broken)} of {len(paths)} training images cannot be used. Mend them or "
                    f"take them out, then train again:\n  {listed}"
                )
            return cls(spool)
        except BaseException:
            spool.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._items, Spool):
            self._items.close()

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        height, width, channels = self._items.shape[-3:]
        return height, width, channels

    def __getitem__(self, indices: NDArray[np.integer] | slice) -> NDArray[np.uint8]:
        return np.array(self._items[self._indices[indices]])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(self), self.BATCH):
            yield self[start : start + self.BATCH]

    def digests(self) -> list[str]:
        """A hash of each image as 16 hexadecimal digits; images that look the same share it."""
        return [image_digest(image) for batch in self for image in batch]

    def subset(self, indices: NDArray[np.integer]) -> ImageSet:
        """These images alone, without copying them; it lives no longer than the whole."""
        return ImageSet(self._items, self._indices[indices])


def image_digest(prepared: Image) -> str:
    """A hash of an image as a model sees it, 16 hexadecimal digits."""
    return hashlib.sha256(prepared.tobytes()).hexdigest()[:16]


def _try_read(path: Path, spec: ImageSpec) -> Image | str:
    try:
        return spec.prepare(read_image(path))
    except (ImageError, PathError) as error:
        return str(error)


def split(count: int, sizes: Sequence[int], seed: int) -> list[NDArray[np.intp]]:
    """Split `count` images into disjoint random parts, the same ones for the same seed.

    Parameters
    ----------
    count : int
        Number of images.
    sizes : sequence of int
        Sizes of all parts but the first, which gets the rest.
    seed : int
        Seed of the permutation.

    Returns
    -------
    list of ndarray of int
        Sorted indices; one array more than `sizes`.
    """
    rest = count - sum(sizes)
    if rest < 1 or min(sizes, default=0) < 0:
        raise OptionError(f"{count} images cannot be split into parts of {list(sizes)} and a rest.")
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(part) for part in np.split(order, np.cumsum([rest, *sizes])[:-1])]

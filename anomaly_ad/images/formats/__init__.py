"""The file formats that are read, one file each.

A new one is a module with a `Format` in the tuple below: suffixes, header, damage and pixels.
"""

from .base import Format, Header, Image, Pixels, UnreadableError, damaged, turned
from .bmp import BMP
from .jpeg import JPEG
from .jpeg2000 import JPEG2000
from .png import PNG
from .pnm import PNM
from .tiff import TIFF
from .webp import WEBP

FORMATS = (JPEG, PNG, BMP, TIFF, WEBP, JPEG2000, PNM)
SUFFIXES = tuple(suffix for entry in FORMATS for suffix in entry.suffixes)
NAMES = ", ".join(entry.name for entry in FORMATS)

# Images that are not read: by suffix, or by how they begin where the suffix says nothing.
OTHER_SUFFIXES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf"}
    | {".j2k", ".jpf", ".jpx", ".jxl", ".jxr", ".pbm", ".pfm", ".pcx", ".tga", ".exr", ".hdr"}
    | {".npy", ".psd", ".dcm", ".mpo", ".apng", ".ras"}
)
_OTHER_MAGIC = (
    b"GIF8",
    b"8BPS",
    b"\x76\x2f\x31\x01",
    b"\xff\x0a",
    b"\0\0\0\x0cJXL ",
    b"#?RADIANCE",
)


def format_of(data: bytes) -> Format | None:
    """The format by the first bytes of a file; None for none of these."""
    return next((entry for entry in FORMATS if data.startswith(entry.magic)), None)


def begins_like_an_image(data: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of an image, of these formats or others."""
    is_heif = data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"msf1")
    is_riff = data.startswith(b"RIFF") and data[8:12] != b"WEBP"
    is_text = data.startswith((b"P2", b"P3", b"P5", b"P6", b"BM")) and data.isascii()
    found = data.startswith(_OTHER_MAGIC) or is_heif or format_of(data) is not None
    return found and not is_riff and not is_text


__all__ = [
    "FORMATS",
    "NAMES",
    "OTHER_SUFFIXES",
    "SUFFIXES",
    "Format",
    "Header",
    "Image",
    "Pixels",
    "UnreadableError",
    "begins_like_an_image",
    "damaged",
    "format_of",
    "turned",
]

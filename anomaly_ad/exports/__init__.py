"""A model for other programs: files that were compared with it on real images before they are left.

`export` writes one; `kinds` knows the formats, `metadata` what a file says of itself.
"""

from .export import FORMATS, Export, export

__all__ = ["FORMATS", "Export", "export"]

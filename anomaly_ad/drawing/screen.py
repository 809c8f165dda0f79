"""Show pictures to a person, where there is one: a notebook, or a window on a display."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..images import Image


def show(picture: Image, title: str, instead: str) -> bool:
    """Show one picture with matplotlib; without a display or matplotlib, warn and go on.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
        RGB.
    title : str
        Stands above it.
    instead : str
        What to do where nothing can be shown, as a sentence.

    Returns
    -------
    bool
        Whether it was shown.
    """
    if not (_in_notebook() or _has_display()):
        warnings.warn(
            f"There is no display and no notebook to show pictures in. {instead}", stacklevel=4
        )
        return False
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        warnings.warn(
            f"Showing pictures needs matplotlib: python -m pip install matplotlib. {instead}",
            stacklevel=4,
        )
        return False
    figure, axes = plt.subplots(figsize=(8, 8 * picture.shape[0] / picture.shape[1] + 0.5))
    axes.imshow(picture)
    axes.set_title(title)
    axes.set_axis_off()
    plt.show()
    plt.close(figure)
    return True


@contextmanager
def window(title: str) -> Iterator[Callable[[Image], None]]:
    """A window whose picture changes; without a display or matplotlib, warn and show nothing.

    Yields
    ------
    callable
        Takes a picture, RGB uint8 (H, W, 3); for the thread that opened the window.
    """
    if not _has_display():
        warnings.warn("There is no display to show pictures on.", stacklevel=3)
        yield lambda picture: None
        return
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        warnings.warn(
            "Showing pictures needs matplotlib: python -m pip install matplotlib.", stacklevel=3
        )
        yield lambda picture: None
        return
    figure, axes = plt.subplots(num=title, figsize=(8, 6))
    axes.set_axis_off()
    shown: list[Any] = []

    def show(picture: Image) -> None:
        if not plt.fignum_exists(figure.number):  # someone has closed it
            return
        if shown and shown[0].get_array().shape == picture.shape:
            shown[0].set_data(picture)
        else:
            axes.clear()
            axes.set_axis_off()
            shown[:] = [axes.imshow(picture)]
        plt.pause(0.001)

    try:
        yield show
    finally:
        plt.close(figure)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

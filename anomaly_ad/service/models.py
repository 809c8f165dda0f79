"""The models that are served, by name; one whose directory was replaced is taken up.

A request asks for its model once and keeps it. So a replacement is loaded and compiled while the
old one is used, then one reference changes, and what is under way ends with the model it began
with.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import AnomalyADError, ModelError
from ..model import StoredModel, load
from ..model.manifest import MANIFEST
from .schema import ModelFacts, Refusal

LOOK_EVERY = 1.0  # seconds between two looks at the directories

_INPUT = ("height", "width", "channels", "fit")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A model under the name that requests use."""

    name: str
    stored: StoredModel

    def facts(self) -> ModelFacts:
        """What clients may know."""
        manifest = self.stored.manifest
        plan, limits, framing = manifest.plan, manifest.calibration, manifest.plan.framing
        return ModelFacts(
            name=self.name,
            digest=self.stored.digest,
            method=plan.method,
            input={name: getattr(framing, name) for name in _INPUT},
            patch_size=plan.patch_size,
            precision=plan.precision,
            created=manifest.created,
            median=limits.image.median,
            limit=limits.image.limit,
            stated_rate=limits.stated_rate,
            has_map=limits.map is not None,
        )


class Models:
    """Named models, loaded and ready; the first is the one that is taken where none is named.

    `changed` is called with the name and whether it worked, after a directory was replaced;
    `placed` brings a model to its device, or raises what speaks against it.
    """

    def __init__(
        self,
        directories: Mapping[str, Path],
        changed: Callable[[str, bool], None] = lambda name, worked: None,
        placed: Callable[[StoredModel], StoredModel] = lambda stored: stored,
    ) -> None:
        self._directories = dict(directories)
        self._changed = changed
        self._placed = placed
        # Before loading: what is replaced meanwhile is seen at the first look.
        self._states = {name: _state(path) for name, path in self._directories.items()}
        self._served = {name: self._serve(name, path) for name, path in self._directories.items()}
        self._said: dict[str, str] = {}
        self._missing: set[str] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the directories meanwhile."""
        end = threading.Event()

        def watch() -> None:
            while not end.wait(LOOK_EVERY):
                self.look()

        watcher = threading.Thread(target=watch, name="models", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            end.set()
            watcher.join()

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._served.values()))

    def get(self, name: str | None) -> Served:
        """The model of this name, the first for None; Refusal 404 if there is none."""
        if name is None:
            return next(iter(self))
        if name in self._served:
            return self._served[name]
        raise Refusal(404, f"There is no model {name[:64]!r}. Models: {', '.join(self._served)}.")

    def look(self) -> None:
        """Take up what was replaced since the last look.

        A model that cannot be loaded, for instance since it is still being copied, is tried again
        at the next look; the old one stays.
        """
        for name, path in self._directories.items():
            state = _state(path)
            if state is None:
                # While it is replaced it may be away for a moment: what counts is the second look.
                if name in self._missing:
                    self._complain(name, ModelError(f"{path} no longer holds a model."))
                self._missing.add(name)
                continue
            self._missing.discard(name)
            if state != self._states[name]:
                try:
                    served = self._serve(name, path)
                except Exception as error:  # whatever is wrong with it, the old one goes on
                    self._complain(name, error)
                    continue
                self._states[name] = state
                before, self._served[name] = self._served[name], served
                digests = {"digest": served.stored.digest, "before": before.stored.digest}
                if len({*digests.values()}) == 2:
                    self._changed(name, True)
                    _log.info("a replaced model is taken up", extra={"model": name, **digests})
            self._said.pop(name, None)

    def _serve(self, name: str, path: Path) -> Served:
        stored = self._placed(load(path))
        views = np.zeros((1, *stored.manifest.plan.framing.view_shape), np.uint8)
        stored.engine.run_concurrently(views)  # compiles, and shows that it runs
        return Served(name, stored)

    def _complain(self, name: str, error: Exception) -> None:
        """Say once what is wrong, and where it arose only for a fault of the program."""
        if self._said.get(name) == str(error):
            return
        self._said[name] = str(error)
        self._changed(name, False)
        facts = {"model": name, "error": str(error)}
        where = None if isinstance(error, AnomalyADError) else error
        _log.error("a replaced model is not taken up", extra=facts, exc_info=where)


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when the manifest is replaced; None while there is none."""
    try:
        state = os.stat(path / MANIFEST)
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size

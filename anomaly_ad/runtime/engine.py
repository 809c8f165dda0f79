"""An OpenVINO model, compiled for this machine and run: one batch, or a stream of images."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..errors import ModelError, OptionError
from ..images import Framing, Seen, model_inputs
from .devices import CPU, Device

T = TypeVar("T")
Outputs = dict[str, NDArray[np.float32]]

PRECISIONS = ("f32", "bf16", "f16")
# Of models whose features are quantised: what is not computes in f32.
INT8 = "int8"


def check_precision(precision: str) -> None:
    """Raise OptionError unless `precision` is one of `PRECISIONS`, or `INT8`."""
    if precision not in (*PRECISIONS, INT8):
        raise OptionError(
            f"precision is the arithmetic of the model, one of {', '.join(PRECISIONS)}. "
            f"Received: {precision!r}."
        )


_HERE = Device()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """A model ready to run, from any thread and in forked processes.

    Parameters
    ----------
    model : openvino.Model or path of its .xml file
        "images", uint8 (B, height, width, channels), and in some models "inside", uint8
        (B, height, width) -> named outputs.
    precision : {"f32", "bf16", "f16", "int8"}
        Arithmetic of the model, always given explicitly: OpenVINO's own default differs between
        processors, and scores with it.
    device : Device
        Where it runs.

    Raises
    ------
    ModelError
        OpenVINO cannot read or compile the model.
    OptionError
        There is no such device.
    """

    def __init__(
        self, model: ov.Model | Path, precision: str = "f32", device: Device = _HERE
    ) -> None:
        check_precision(precision)
        device.check()
        self.device = device
        self._is_quantised = precision == INT8
        self._precision = "f32" if self._is_quantised else precision
        self._begin()
        try:
            self._model = self._core.read_model(model) if isinstance(model, Path) else model
            if device.kind == "NPU":  # takes no open batch
                shapes = [[1, *[*each.partial_shape][1:]] for each in self._model.inputs]
                self._model.reshape(dict(enumerate(shapes)))
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot read the model {model}: {error}") from error
        self._takes_images = len(self._model.inputs) == 1
        _engines.add(self)

    def _begin(self) -> None:
        """Nothing is compiled yet: as it is at first, and again in a forked process."""
        self._lock = threading.Lock()
        self._core = ov.Core()
        # Read, not mapped: whoever writes over a mapped file kills the processes that use it.
        self._core.set_property({"ENABLE_MMAP": False})
        self.device.prepare(self._core)
        if self._is_quantised:
            # In several streams INT8 gives other results, and wrong ones, on processors without
            # VNNI (OpenVINO 2026.4). Set for AUTO as well, which may use the CPU meanwhile.
            self._core.set_property(CPU, {"NUM_STREAMS": 1})
        self._models: dict[str, ov.CompiledModel] = {}
        self._requests: SimpleQueue[ov.InferRequest] | None = None
        self._spare: list[ov.InferRequest] = []  # of the model that takes one image at a time

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its model, to be compiled where it is opened: with the threads there."""
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, "model.xml")
            ov.save_model(self._model, path, compress_to_fp16=False)
            xml, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
        precision = INT8 if self._is_quantised else self._precision
        return _restored, (xml, weights, precision, Device(self.device.name))

    @property
    def arithmetic(self) -> str:
        """What the model is computed in: its precision, or the next that the device has."""
        return self.device.arithmetic(self._core, self._precision)

    def _compile(self, hint: str) -> ov.CompiledModel:
        properties = {"INFERENCE_PRECISION_HINT": self.arithmetic, "PERFORMANCE_HINT": hint}
        try:
            return self._core.compile_model(self._model, self.device.name, properties)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot compile the model: {error}") from error

    # Compiled on first use: one image at a time wants all cores on that image, a stream wants
    # each core on an image of its own.
    @property
    def _single(self) -> ov.CompiledModel:
        return self._compiled("LATENCY")

    @property
    def _streaming(self) -> ov.CompiledModel:
        return self._compiled("THROUGHPUT")

    def _compiled(self, hint: str) -> ov.CompiledModel:
        with self._lock:
            if hint not in self._models:
                self._models[hint] = self._compile(hint)
            return self._models[hint]

    # Requests of their own, not an AsyncInferQueue's: that one may be used from one thread only.
    @property
    def _idle(self) -> SimpleQueue[ov.InferRequest]:
        model = self._streaming
        with self._lock:
            if self._requests is None:
                self._requests = SimpleQueue()
                for _ in range(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
                    self._requests.put(model.create_infer_request())
            return self._requests

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the views it takes, see `images.Framing`."""
        try:
            shapes = {
                each.get_any_name(): tuple(n.get_length() for n in [*each.partial_shape][1:])
                for each in self._model.inputs
            }
            height, width, channels = shapes.pop("images")
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"The model's input is not a batch of images: {error}") from error
        if shapes not in ({}, {"inside": (height, width)}):
            raise ModelError(f"The model has inputs that are not known: {shapes}.")
        return height, width, channels + len(shapes)

    def _inputs(self, views: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return [views] if self._takes_images else model_inputs(views, views.shape[-1] - 1)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return [output.get_any_name() for output in self._model.outputs]

    def run(self, views: NDArray[np.uint8], names: Collection[str] | None = None) -> Outputs:
        """Run one batch, as fast as one batch can be; from any thread.

        Parameters
        ----------
        views : ndarray of uint8, shape (B, height, width, channels)
            See `images.Framing.take`.
        names : collection of str, optional
            The outputs that are wanted, where the model has them; None for all.

        Returns
        -------
        dict of str to ndarray of float32
            The outputs by name, as arrays of their own.
        """
        # A request holds the results of its last call, so no two threads may have the same one.
        # There are as many as there were threads at a time; lists are safe to share.
        try:
            request = self._spare.pop()
        except IndexError:
            request = self._single.create_infer_request()
        try:
            request.infer(self._inputs(views), share_inputs=True)
            return _copy_outputs(request, names)
        finally:
            self._spare.append(request)

    def run_concurrently(
        self, views: NDArray[np.uint8], names: Collection[str] | None = None
    ) -> Outputs:
        """Run one batch from any thread, alongside those of other threads; otherwise as `run`.

        The threads share the asynchronous requests of the model compiled for throughput, as many
        as it can work on at once; who finds none idle waits. The first call compiles; make it
        before there are several threads.
        """
        request = self._idle.get()
        try:
            request.start_async(self._inputs(views))
            request.wait()
            return _copy_outputs(request, names)
        finally:
            self._idle.put(request)

    def inspect(
        self, seen: Seen, framing: Framing, names: Collection[str] | None = None
    ) -> Outputs:
        """What the model says of one image, as fast as one image can be; from any thread.

        The only view of an image gets all cores; several go through the queue together.

        Parameters
        ----------
        seen : Taken or other Seen
            What the model sees of it.
        framing : Framing
            How its answers are put together, see `Framing.merge`.
        names : collection of str, optional
            As in `run`.
        """
        if len(seen.tiles) > 1:
            return self.inspect_concurrently(seen, framing, names)
        return framing.merge(self.run(seen.views[0][None], names), seen.tiles)

    def inspect_concurrently(
        self, seen: Seen, framing: Framing, names: Collection[str] | None = None
    ) -> Outputs:
        """As `inspect`, alongside other threads, see `run_concurrently`.

        Several views use as many requests as are idle; they wait for one only while they hold
        none, so threads cannot block each other.
        """
        merger = framing.merger()
        held: deque[tuple[int, ov.InferRequest]] = deque()

        def collect() -> None:
            tile, request = held[0]
            request.wait()
            merger.add(tile, _copy_outputs(request, names))
            held.popleft()
            self._idle.put(request)

        try:
            for tile, view in zip(seen.tiles, seen.views, strict=True):
                request = None
                while request is None:
                    try:
                        request = self._idle.get(block=not held)
                    except Empty:
                        collect()
                try:
                    request.start_async(self._inputs(view[None]))
                except BaseException:
                    self._idle.put(request)
                    raise
                held.append((tile, request))
            while held:
                collect()
        finally:
            for _, request in held:  # after an error
                with suppress(RuntimeError):
                    request.wait()
                self._idle.put(request)
        return merger.result()

    def inspect_all(
        self,
        items: Iterable[tuple[T, Seen | None]],
        framing: Framing,
        names: Collection[str] | None = None,
    ) -> Iterator[tuple[T, Outputs | None]]:
        """What the model says of many images; all their views go through one queue.

        Parameters
        ----------
        items : iterable of (anything, Seen or None)
            What comes back with the result, and what the model sees of an image; None gives None.
        framing, names
            As in `inspect`.

        Yields
        ------
        (anything, dict or None)
            In the order of the items.
        """

        def views() -> Iterator[tuple[tuple[T, int, bool], NDArray[np.uint8] | None]]:
            for item, seen in items:
                if seen is None:
                    yield (item, 0, True), None
                    continue
                for tile, view in zip(seen.tiles, seen.views, strict=True):
                    yield (item, tile, tile == seen.tiles[-1]), view[None]

        merger = framing.merger()
        for (item, tile, is_last), outputs in self.stream(views(), names):
            if outputs is None:
                yield item, None
                continue
            merger.add(tile, outputs)
            if is_last:
                yield item, merger.result()
                merger = framing.merger()

    def run_all(self, views: NDArray[np.uint8], names: Collection[str] | None = None) -> Outputs:
        """Run many views (N, height, width, channels), each alone, and put the results together.

        One at a time, since the memory of a batch is never given back.
        """
        each = ((None, view[None]) for view in views)
        results = [outputs for _, outputs in self.stream(each, names)]
        found = [outputs for outputs in results if outputs is not None]
        return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}

    def stream(
        self,
        items: Iterable[tuple[T, NDArray[np.uint8] | None]],
        names: Collection[str] | None = None,
    ) -> Iterator[tuple[T, Outputs | None]]:
        """Run images through an asynchronous queue; results come in the order of the items.

        Parameters
        ----------
        items : iterable of (anything, ndarray of uint8 or None)
            What comes back with the result, and the views of an image, (T, height, width,
            channels). Where they are None so is the result; it keeps its place in the order.
        names : collection of str, optional
            As in `run`.

        Yields
        ------
        (anything, dict or None)
            The outputs for these views, as `run` returns them.
        """
        # No Python callbacks: they would run in OpenVINO's threads and need the interpreter lock
        # there, also while the queue is being destroyed. Results are fetched when they are asked
        # for instead, or when their request is needed again.
        queue = ov.AsyncInferQueue(self._streaming)
        requests = list(queue)
        unread: dict[int, _Slot] = {}
        waiting: deque[_Slot] = deque()

        def fetch(slot: _Slot) -> None:
            if unread.get(slot.handle) is slot:
                requests[slot.handle].wait()
                slot.outputs = _copy_outputs(requests[slot.handle], names)
                del unread[slot.handle]

        try:
            for item, views in items:
                slot = _Slot(item)
                if views is not None:
                    slot.handle = queue.get_idle_request_id()
                    if slot.handle in unread:
                        fetch(unread[slot.handle])
                    unread[slot.handle] = slot
                    queue.start_async(self._inputs(views))
                waiting.append(slot)
                if len(waiting) > len(requests):
                    fetch(waiting[0])
                    done = waiting.popleft()
                    yield done.item, done.outputs
            while waiting:
                fetch(waiting[0])
                done = waiting.popleft()
                yield done.item, done.outputs
        finally:
            queue.wait_all()


def _restored(xml: bytes, weights: bytes, precision: str, device: Device) -> Engine:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "model.xml")
        path.write_bytes(xml)
        path.with_suffix(".bin").write_bytes(weights)
        return Engine(path, precision, device)


def _after_fork() -> None:
    """The threads of compiled models stay in the parent; whoever waited for them would hang."""
    for engine in list(_engines):
        _left_behind.append((engine._core, engine._models, engine._requests, engine._spare))
        engine._begin()


_left_behind: list[Any] = []  # to be destroyed they would need their threads
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass
class _Slot:
    """An item that is under way, and the request that works on it."""

    item: Any
    handle: int = -1
    outputs: Outputs | None = None


def _copy_outputs(request: ov.InferRequest, names: Collection[str] | None) -> Outputs:
    # The request writes its next results into the same memory, so they are copied out.
    return {
        name: np.array(request.get_tensor(output).data)
        for output in request.model_outputs
        if (name := output.get_any_name()) and (names is None or name in names)
    }

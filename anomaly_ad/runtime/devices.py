"""What of a machine runs a model: its processor, a graphics unit, a neural one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache

import openvino as ov

from ..errors import OptionError
from ..support import cpu_count

CPU, AUTO = "CPU", "AUTO"
_NAME = re.compile(r"(CPU|GPU|NPU)(\.\d+)?|AUTO")
# What OpenVINO calls the arithmetic that a device is able to do.
_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


@dataclass(frozen=True)
class Device:
    """Where a model runs, and how many threads it gets there.

    Parameters
    ----------
    name : str
        "CPU", "GPU" or "NPU", "GPU.1" for the second of several, or "AUTO": OpenVINO chooses.
    threads : int or None
        Of the CPU; None for as many as this process may use.
    """

    name: str = CPU
    threads: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name.upper()):
            raise OptionError(
                f"device is CPU, GPU, NPU, one of several such as GPU.1, or AUTO. "
                f"Received: {self.name!r}."
            )
        object.__setattr__(self, "name", self.name.upper())
        threads = self.threads
        if threads is not None and (type(threads) is not int or not 1 <= threads <= 1024):
            raise OptionError(f"threads is a number from 1 to 1024. Received: {threads!r}.")

    @property
    def kind(self) -> str:
        """The name without a number; "CPU" for AUTO where there is nothing to choose from."""
        if self.name == AUTO and {*map(_kind, available())} <= {CPU}:
            return CPU
        return _kind(self.name)

    @property
    def n_threads(self) -> int:
        """How many threads work around the model and, on the CPU, in it."""
        return self.threads or cpu_count()

    def check(self) -> None:
        """Raise OptionError where there is no such device."""
        if self.name in (CPU, AUTO):
            return
        found = available()
        if any(name in (self.name, f"{self.name}.0") for name in found):
            return
        there = ", ".join(f"{name} ({words})" for name, words in found.items())
        raise OptionError(
            f"There is no device {self.name} on this machine, or its driver is missing. "
            f"There are: {there}."
        )

    def prepare(self, core: ov.Core) -> None:
        """Tell OpenVINO of the threads, where they are fewer than it would take."""
        if self.threads is not None or cpu_count() < (os.cpu_count() or 1):
            # Not pinned: OpenVINO would bind those of every process to the same processors.
            core.set_property(
                CPU, {"INFERENCE_NUM_THREADS": self.n_threads, "ENABLE_CPU_PINNING": False}
            )

    def arithmetic(self, core: ov.Core, precision: str) -> str:
        """The precision that a model runs in here: the one asked for where the device has it."""
        if self.name in (CPU, AUTO):
            return precision
        able = core.get_property(self.name, "OPTIMIZATION_CAPABILITIES")
        return precision if _CAPABILITIES[precision] in able else "f16"


@cache
def available() -> dict[str, str]:
    """The devices of this machine that OpenVINO can use: name -> what it is."""
    core = ov.Core()
    return {
        name: str(core.get_property(name, "FULL_DEVICE_NAME")).strip()
        for name in core.available_devices
    }


def _kind(name: str) -> str:
    return name.partition(".")[0]

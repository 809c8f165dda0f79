"""The engines by name."""

from __future__ import annotations

from ..errors import OptionError
from .base import Workers
from .local import Local

ENGINES = ("local", "ray")


def workers_of(
    engine: str = "local",
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
) -> Workers:
    """The workers of an engine, not yet opened.

    Parameters
    ----------
    engine : {"local", "ray"}
        The threads of this process, or Ray.
    address : str, optional
        Of a Ray cluster: "auto" for the one that this machine belongs to. None: as Ray does, that
        in the environment variable RAY_ADDRESS, else processes on this machine.
    workers : int, optional
        Processes; None for as many as there are processors for.
    threads : int, optional
        Of each.

    Raises
    ------
    OptionError
        There is no such engine, or an option is not one of it.
    MissingExtraError
        Ray is not installed.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine is one of {', '.join(ENGINES)}. Received: {engine!r}.")
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and (type(value) is not int or not 1 <= value <= 4096):
            raise OptionError(f"{name} is a number from 1 to 4096. Received: {value!r}.")
    if engine == "ray":
        from .on_ray import RayWorkers

        return RayWorkers(address, workers, threads)
    if (address, workers) != (None, None):
        raise OptionError('address and workers are for engine="ray".')
    return Local()

"""Ray: processes on this machine or on many.

Every job has a session of its own, which ends with it. Nothing waits without end: a start or a
result that does not come within minutes is an error that says what to do.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Self, TypeVar

from .. import errors
from ..errors import AnomalyADError, EngineError, OptionError, missing_extra
from ..support import cpu_count, say
from .base import Job, beating

T = TypeVar("T")
R = TypeVar("R")

START = 180.0  # seconds that a session may take to start
PATIENCE = 900.0  # seconds without a sign of life after which a job is given up
_STEP = 3600.0  # seconds that a step of a fit may take
_FAILED = "anomaly_ad error"  # names a result that is an error
_BEAT = 10.0  # seconds between signs of life
_THREADS = 2  # of each process
_GRACE = 10.0  # seconds that Ray gets to end a pipeline
_TRIES = 5  # to get a result from an object whose process was lost
_STORE = 512_000_000  # bytes of shared memory on this machine, at most


class RayWorkers:
    """Processes that Ray keeps; `workers.Workers` says what they do.

    Parameters
    ----------
    address : str, optional
        Of a cluster, see `workers_of`.
    workers : int, optional
        Processes; None for as many as the cluster has processors for.
    threads : int, optional
        Of each; None for 2, or 1 where there is one processor.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    """

    spreads = True

    def __init__(
        self, address: str | None = None, workers: int | None = None, threads: int | None = None
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise missing_extra('engine="ray"', "ray", "ray")
        self.address = address
        self.threads = threads or min(_THREADS, cpu_count())
        self._asked = workers
        self.count = workers or 0

    def __enter__(self) -> Self:
        # Read when Ray is imported: nothing is reported to anybody, and what it logs is in files.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # A thread of Ray Data that outlives its session must not begin another one.
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
        ray = importlib.import_module("ray")
        if ray.is_initialized():
            raise OptionError(
                "A Ray session is open in this process. Each job has one of its own, since another "
                "may hang after a process was lost: call ray.shutdown() first."
            )
        self._ray = ray
        say("Starting Ray ...")
        begun = time.perf_counter()
        try:
            self._wait_for(self._begin, START)
            nodes = [int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]]
            possible = sum(processors // self.threads for processors in nodes)
            self.count = self._asked or possible
            if not 0 < self.count <= possible:
                raise EngineError(
                    f"The Ray cluster has room for {possible} processes of {self.threads} threads: "
                    f"its machines have {', '.join(map(str, nodes))} processors. Ask for fewer."
                )
        except BaseException:
            self.__exit__()
            raise
        took = time.perf_counter() - begun
        processes = f"{self.count} process{'' if self.count == 1 else 'es'}"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        say(f"Ray: {processes} of {threads} each, started in {took:.0f} s.")
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(Exception):
            self._ray.shutdown()
        self._is_over.set()

    def _begin(self) -> None:
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "include_dashboard": False,
        }
        address = self.address or os.environ.get("RAY_ADDRESS")
        if address in (None, "local"):
            wanted = (self._asked or 1) * self.threads
            options |= {
                "address": "local",
                "num_cpus": max(wanted, cpu_count()),
                "object_store_memory": _STORE,
            }
        else:
            options |= {"address": address}
            del options["include_dashboard"]
        try:
            self._ray.init(**options)
        except AnomalyADError:
            raise
        except Exception as error:
            raise EngineError(
                f"Ray cannot be started ({type(error).__name__}: {error}). With an address, check "
                "that `ray status` works on this machine; without one, that it is not under heavy "
                'load, or use engine="local".'
            ) from error

    def _wait_for(self, work: Callable[[], None], seconds: float) -> None:
        """Do it in a thread, which can be waited for no longer than that.

        It lives as long as the session: Linux ends the processes that it has started with it.
        """
        self._is_over = is_over = threading.Event()
        found: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                found.put(error)
            else:
                found.put(None)
                is_over.wait()

        threading.Thread(target=run, name="anomaly_ad_ray", daemon=True).start()
        try:
            error = found.get(timeout=seconds)
        except queue.Empty:
            raise EngineError(
                f"Ray has not started within {seconds:.0f} s. The machine may be under heavy load: "
                'try again later, with fewer workers, or with engine="local".'
            ) from None
        if error is not None:
            raise error

    def map(self, job: Job[T, R], items: Iterable[T], chunk: int = 16) -> Iterator[R]:
        """Results in the order of the items; twice as many chunks as processes are under way."""
        ray = self._ray
        run = ray.remote(num_cpus=self.threads, max_retries=-1)(_run)
        kept = ray.put(job)
        key = token_hex(8)
        under_way: deque[Any] = deque()
        for some in _chunks(items, chunk):
            under_way.append(run.remote(key, self.threads, [kept], some))
            if len(under_way) >= 2 * self.count:
                yield from self._get(under_way.popleft())
        while under_way:
            yield from self._get(under_way.popleft())

    def each(self, job: Job[T, dict[str, Any]], items: Sequence[T]) -> Iterator[dict[str, Any]]:
        """Results as they come, through Ray Data; see `workers.Workers`."""
        if not items:
            return
        ray = self._ray
        data = importlib.import_module("ray.data")
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        for name in ("ray.data", "ray.data.dataset"):
            logging.getLogger(name).setLevel(logging.ERROR)
        kept = ray.put(job)
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        pulse = ray.remote(**lasting)(_Pulse).remote()
        rows = [{"item": json.dumps(item)} for item in items]
        work = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Each,
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(self.count, len(rows))),
            num_cpus=self.threads,
            # In a list it is fetched by the process, which can do so once more when it is lost.
            fn_constructor_kwargs={
                "threads": self.threads,
                "job": [kept],
                "pulse": pulse,
                "beat": _BEAT,
            },
        )
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        is_over = threading.Event()

        def run() -> None:
            try:
                for row in work.iter_rows():
                    if is_over.is_set():
                        return
                    found.put(row["result"])
                found.put(None)
            except BaseException as error:
                found.put(error)

        thread = threading.Thread(target=run, name="anomaly_ad_ray", daemon=True)
        thread.start()
        try:
            while True:
                result = self._next(found, pulse)
                if isinstance(result, BaseException):
                    raise _understood(result)
                if result is None:
                    return
                values = json.loads(result)
                if _FAILED in values:
                    name, words = values[_FAILED]
                    raise getattr(errors, name)(words)
                yield values
        finally:
            # A session that ends under it takes this process with it.
            is_over.set()
            thread.join(0.1)
            if thread.is_alive():
                with suppress(Exception):
                    for actor in self._get(pulse.actors.remote(), _GRACE):
                        ray.kill(actor)
            thread.join(_GRACE)

    def _next(self, found: queue.SimpleQueue[Any], pulse: Any) -> Any:
        """The next of them, which may take long as long as somebody works."""
        n_beats = -1
        while True:
            try:
                return found.get(timeout=PATIENCE)
            except queue.Empty:
                before, n_beats = n_beats, self._get(pulse.count.remote(), PATIENCE)
                if n_beats in (before, 0):
                    raise _too_slow(PATIENCE) from None

    def hold(self, make: Callable[[], Any]) -> list[_Remote]:
        """An object in each of the processes."""
        kept = self._ray.put(make)
        return [_Remote(self, kept) for _ in range(self.count)]

    def merged(self, name: str, helds: Sequence[_Remote], args: Sequence[tuple[Any, ...]]) -> Any:
        """Merged in a tree: each level in as many processes as it has pairs."""
        # No processors: the objects have them all while they live.
        merge = self._ray.remote(num_cpus=0, max_retries=-1)(_merged)
        asked = [held.keep(name, *some) for held, some in zip(helds, args, strict=True)]
        parts = [each() for each in asked]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            odd = parts[len(parts) // 2 * 2 :]
            parts = [merge.remote(*pair) for pair in pairs] + odd
        return self._get(parts[0])

    def share(self, value: Any) -> Any:
        """Put where all processes can read it."""
        return self._ray.put(value)

    def _get(self, reference: Any, patience: float = _STEP) -> Any:
        try:
            return self._ray.get(reference, timeout=patience)
        except self._ray.exceptions.GetTimeoutError:
            raise _too_slow(patience) from None
        except self._ray.exceptions.RayActorError:
            raise
        except self._ray.exceptions.RayError as error:
            raise _understood(error) from error


class _Remote:
    """An object in another process; where that is lost, another one is made and told the same."""

    def __init__(self, workers: RayWorkers, make: Any) -> None:
        self._workers, self._make = workers, make
        self._told: list[tuple[str, Callable[[], tuple[Any, ...]]]] = []
        self._begin()

    def _begin(self) -> None:
        remote = self._workers._ray.remote(num_cpus=self._workers.threads, max_restarts=0)(_Holder)
        self._actor = remote.remote(self._workers.threads, [self._make])

    def tell(self, name: str, args: Callable[[], tuple[Any, ...]]) -> Callable[[], Any]:
        # Kept first: where the process is lost meanwhile it is told twice, which does no harm.
        self._told.append((name, args))
        return self._result(lambda actor: actor.call.remote(name, *args()))

    def ask(self, name: str, *args: Any) -> Callable[[], Any]:
        return self._result(lambda actor: actor.call.remote(name, *args))

    def keep(self, name: str, *args: Any) -> Callable[[], Any]:
        """As `ask`, but the result stays where it is: what waits gives a reference to it."""
        kept: list[Any] = []

        def call(actor: Any) -> Any:
            done, kept[:] = actor.call_and_keep.options(num_returns=2).remote(name, *args), []
            kept.append(done[1])
            return done[0]

        wait = self._result(call)

        def result() -> Any:
            wait()
            return kept[0]

        return result

    def _result(self, call: Callable[[Any], Any]) -> Callable[[], Any]:
        """Begin a call; what comes back waits for its result, and begins it again if it must."""
        workers, asked, reference = self._workers, self._actor, call(self._actor)

        def result() -> Any:
            nonlocal asked, reference
            for _ in range(_TRIES):
                try:
                    return workers._get(reference)
                except workers._ray.exceptions.RayActorError:
                    pass
                try:
                    if asked is self._actor:
                        self._begin()
                        for name, args in self._told:
                            workers._get(self._actor.call.remote(name, *args()))
                    asked, reference = self._actor, call(self._actor)
                except workers._ray.exceptions.RayActorError:
                    continue
            raise EngineError(
                f"A process of Ray was lost {_TRIES} times in a row, perhaps for lack of memory. "
                "Use fewer workers."
            )

        return result


class _Holder:
    """Runs in a process of Ray: keeps an object."""

    def __init__(self, threads: int, make: list[Any]) -> None:
        _begin_process(threads)
        self._make = make
        self._held: Any = None

    def call(self, name: str, *args: Any) -> Any:
        if self._held is None:  # not in `__init__`: an error there looks like a lost process
            import ray

            self._held = ray.get(self._make[0])()
        return getattr(self._held, name)(*args)

    def call_and_keep(self, name: str, *args: Any) -> tuple[bool, Any]:
        return True, self.call(name, *args)


class _Each:
    """Runs in a process of Ray Data: a job, and one item at a time."""

    def __init__(self, threads: int, job: list[Any], pulse: Any, beat: float) -> None:
        _begin_process(threads)
        import ray

        self._pulse, self._pause, self._last = pulse, beat, 0.0
        self._failed: AnomalyADError | None = None
        pulse.add_actor.remote(ray.get_runtime_context().current_actor)
        try:
            self._work = ray.get(job[0]).start()
        except AnomalyADError as error:
            self._failed = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        import ray

        names = [str(item) for item in batch["item"]]
        try:
            if self._failed is not None:
                raise self._failed
            for name in names:
                if ray.get(self._pulse.begin.remote(name)) > _TRIES:
                    raise EngineError(
                        f"Part {name} of the work has ended {_TRIES} processes, perhaps for lack "
                        "of memory, or by an image that ends a process. Inspect its images with "
                        "`predict` to find it."
                    )
            with beating(self._beat):
                work = self._work(map(json.loads, names))
                return {"result": [json.dumps(result) for result in work]}
        except AnomalyADError as error:  # Ray Data would lose it
            return {"result": [json.dumps({_FAILED: [_kind(error).__name__, str(error)]})]}

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._last >= self._pause:
            self._last = now
            self._pulse.add.remote()


class _Pulse:
    """Runs in a process of Ray: counts signs of life, and how often each item was begun."""

    def __init__(self) -> None:
        self._count = 0
        self._begun: Counter[str] = Counter()
        self._actors: list[Any] = []

    def begin(self, item: str) -> int:
        self._count += 1
        self._begun[item] += 1
        return self._begun[item]

    def add_actor(self, actor: Any) -> None:
        self._actors.append(actor)

    def actors(self) -> list[Any]:
        return self._actors

    def add(self) -> None:
        self._count += 1

    def count(self) -> int:
        return self._count


_jobs: dict[str, Callable[[Iterable[Any]], Iterable[Any]]] = {}  # started in this process


def _run(key: str, threads: int, job: list[Any], items: list[Any]) -> list[Any]:
    """Runs in a process of Ray: a chunk of a job."""
    if key not in _jobs:
        _begin_process(threads)
        import ray

        _jobs.clear()
        _jobs[key] = ray.get(job[0]).start()
    return [*_jobs[key](items)]


def _merged(first: Any, second: Any) -> Any:
    import copy

    return copy.deepcopy(first).merge(second)  # what Ray hands over cannot be written into


def _begin_process(threads: int) -> None:
    """What a process of Ray needs to know of the one that asks."""
    from ..support.cpus import limit_cpus

    limit_cpus(threads)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    some: list[T] = []
    for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _too_slow(patience: float) -> EngineError:
    return EngineError(
        f"Ray has done nothing for {patience / 60:.0f} minutes. What was written is kept: look at "
        "`ray status` for processes that wait for processors or memory, and start the job again."
    )


def _understood(error: BaseException) -> BaseException:
    """The error of this package that went wrong in a process; else one that tells Ray's."""
    seen: BaseException | None = error
    while seen is not None:
        for one in (getattr(seen, "cause", None), seen):
            if isinstance(one, AnomalyADError):
                return _plain(one)
        seen = seen.__cause__ or seen.__context__
    return EngineError(f"A job on Ray has failed: {error}")


def _plain(error: AnomalyADError) -> AnomalyADError:
    """The error without what Ray makes of its type."""
    return _kind(error)(str(error.args[0]) if error.args else str(error))


def _kind(error: AnomalyADError) -> type[AnomalyADError]:
    """The class in `errors` that it is of."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)

"""The routes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from .._version import __version__
from . import schema
from .answers import answer
from .metrics import CONTENT_TYPE, Metrics
from .middleware import Access, BodyLimits
from .models import Models
from .page import docs_page, inspection_page
from .schema import Error, Failed, ModelList, Options, Ready, Refusal, Status, Verdict, Verdicts
from .settings import Settings
from .sources import Roots, Source, read_images

# Half of them decode, prepare and answer while the others wait for the model.
_WORKERS_PER_CPU = 2


class Service:
    """What the routes work with."""

    def __init__(self, settings: Settings, models: Models, metrics: Metrics) -> None:
        self.settings = settings
        self.models = models
        self.metrics = metrics
        self.roots = Roots(settings.roots)
        self.images = 0  # that have arrived and have no verdict yet
        self.ending = False  # connections are not kept alive then
        metrics.watch(lambda: self.images, settings.queue)
        self._workers = ThreadPoolExecutor(_WORKERS_PER_CPU * settings.device.n_threads, "inspect")

    @contextmanager
    def places(self, images: int) -> Iterator[None]:
        """Places in the queue; Refusal 503 if there are none."""
        if self.images + images > self.settings.queue:
            raise Refusal(503, "The queue is full. Send the request again later.")
        self.images += images
        try:
            yield
        finally:
            self.images -= images

    async def inspect(
        self, call: Callable[..., Verdict], files: list[Source]
    ) -> list[Verdict | Failed]:
        """The verdict on each; one that cannot be inspected does not end the others."""
        loop, timeout = asyncio.get_running_loop(), self.settings.timeout
        with self.places(len(files)):
            calls = [loop.run_in_executor(self._workers, call, *file) for file in files]
            try:
                async with asyncio.timeout(timeout):
                    found = await asyncio.gather(*calls, return_exceptions=True)
            except TimeoutError as error:
                late = f"There was no verdict within {timeout:g} s. Send the request again later."
                raise Refusal(503, late) from error
        return [_verdict(name, one) for (name, _), one in zip(files, found, strict=True)]

    def close(self) -> None:
        """End the worker threads."""
        self._workers.shutdown(cancel_futures=True)


def create_app(
    service: Service,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """The ASGI application."""
    app = FastAPI(
        title="anomaly_ad",
        version=__version__,
        description="Visual inspection that learns from images of good parts only.",
        docs_url=None,  # its page would load scripts from the network
        redoc_url=None,
        redirect_slashes=False,  # to an address that the client has named, and without TLS
        lifespan=lifespan,
    )
    settings, metrics = service.settings, service.metrics
    app.add_middleware(BodyLimits, settings=settings)
    app.add_middleware(
        Access, settings=settings, metrics=metrics, is_ending=lambda: service.ending
    )  # the outer one
    _handle_errors(app)
    _add_inspection(app, service)
    _add_status(app, service)
    _add_pages(app)
    return app


def _add_inspection(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post(
        "/predict",
        summary="Inspect one or several images",
        response_description="One image: its verdict. Several: a list, in their order; one that "
        "cannot be inspected has an error in its place.",
        response_model_exclude_unset=True,
        openapi_extra=schema.PREDICT_BODY,
        responses=schema.PREDICT_ERRORS,
    )
    async def predict(request: Request, options: Annotated[Options, Query()]) -> Verdict | Verdicts:
        given = [name for name, _ in request.query_params.multi_items()]
        if len(set(given)) < len(given):
            raise Refusal(422, "An option is given more than once.")
        served = service.models.get(options.model)
        thresh = settings.threshold if options.thresh is None else options.thresh
        wanted = (options.heatmap, options.anomaly_map)
        call = functools.partial(answer, served, thresh, *wanted, settings.max_pixels)
        with service.places(1):
            pass  # while the queue is full it is of no use to send images
        async with read_images(request, service.roots, settings) as files:
            found = await service.inspect(call, files)
        request.state.facts.update(model=served.name, images=len(found))
        for one in found:
            words = {True: "anomalous", False: "good", None: "error"}
            verdict = words[one.is_anomalous if isinstance(one, Verdict) else None]
            service.metrics.images.labels(served.name, verdict).inc()
        if await request.is_disconnected():
            raise ClientDisconnect
        if len(found) > 1:
            return Verdicts(predictions=found)
        if isinstance(found[0], Failed):
            raise Refusal(found[0].status, found[0].error)
        return found[0]


def _verdict(name: str, found: Verdict | BaseException) -> Verdict | Failed:
    if isinstance(found, Refusal):
        return Failed(name=name, status=found.status, error=found.message)
    if isinstance(found, BaseException):
        raise found
    return found


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Whether the process answers")
    async def health() -> Status:
        return Status(status="ok", version=__version__)

    @app.get("/ready", summary="Whether images can be sent", responses={503: {"model": Error}})
    async def ready() -> Ready:
        with service.places(1):  # models are loaded before the service listens
            names = [served.name for served in service.models]
            return Ready(status="ready", version=__version__, models=names)

    @app.get("/models", summary="The models and their decision limits")
    async def models() -> ModelList:
        facts = [served.facts() for served in service.models]
        return ModelList(models=facts, threshold=service.settings.threshold)

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return inspection_page()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return docs_page(app.openapi())


def _handle_errors(app: FastAPI) -> None:
    """Every error is JSON that says what to do."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        parts = [
            f"{entry['loc'][-1]}: {entry['msg']}. Received: {str(entry.get('input'))[:100]!r}."
            for entry in error.errors()
        ]
        parts.append(f"Options: {', '.join(Options.model_fields)}.")
        return Refusal(422, " ".join(parts)).response()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        hint = f"{error.detail}. See /docs for what there is."
        response = Refusal(error.status_code, hint).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        request.state.facts["status"] = None
        return Refusal(400, "The client broke off.").response()  # nobody reads it

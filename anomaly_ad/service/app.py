"""The routes."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Optional, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .._version import __version__
from ..errors import OptionError
from ..model import check_threshold
from ..support import cpu_count
from . import uploads
from .admission import Admission, Stay
from .answers import answer
from .docs import render_docs
from .files import Roots
from .gate import Gate, Visit
from .metrics import CONTENT_TYPE, Metrics
from .models import Models
from .page import load_page
from .refusal import Refusal
from .schema import (
    MODELS_ANSWER,
    PREDICT_ANSWERS,
    PREDICT_BODY,
    READY_ANSWERS,
    STATUS_ANSWER,
)
from .settings import Settings

T = TypeVar("T")

# Half of them decode, prepare and answer while the others wait for the model.
_WORKERS_PER_CPU = 2
# Requests are small beside the largest that is taken; this many of those fit at a time.
_LARGEST_AT_A_TIME = 8
_PIECE = 65_536  # bytes of an answer that are sent at a time


class Service:
    """What the routes work with.

    Parameters
    ----------
    settings : Settings
        How requests are taken.
    models : Models
        Loaded.
    metrics : Metrics
        What is counted.
    """

    def __init__(self, settings: Settings, models: Models, metrics: Metrics) -> None:
        self.settings = settings
        self.models = models
        self.metrics = metrics
        self.roots = Roots(settings.roots)
        self.admission = Admission(settings.queue, _LARGEST_AT_A_TIME * settings.max_bytes)
        metrics.watch(self.admission)
        self._workers = ThreadPoolExecutor(_WORKERS_PER_CPU * cpu_count(), "inspect")

    async def work(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call a function in a worker thread."""
        loop = asyncio.get_running_loop()
        call = functools.partial(function, *args, **options)
        return await loop.run_in_executor(self._workers, call)

    async def receive(self, request: Request, stay: Stay) -> list[tuple[str, bytes | bytearray]]:
        """The image files of a request, by name; at least one."""
        content_type = request.headers.get("content-type", "").encode("latin-1")
        limit = self.settings.max_bytes
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            raise uploads.too_large(limit)
        kind = content_type.partition(b";")[0].strip().lower()
        if kind == b"multipart/form-data":
            form = await uploads.read_form(request.stream(), content_type, stay, limit)
            return [(upload.name, upload.data) for upload in form]
        if kind == b"application/json":
            name = await uploads.read_name(request.stream())
            stay.take_places(1)
            data = await self.work(self.roots.read, name, limit)
            stay.take_bytes(len(data))
            return [(name, data)]
        raise uploads.wrong_type(content_type)

    def close(self) -> None:
        """End the worker threads."""
        self._workers.shutdown(cancel_futures=True)


def create_app(service: Service) -> Gate:
    """The ASGI application."""
    app = FastAPI(
        title="anomaly_ad",
        version=__version__,
        description="Visual inspection that learns from images of good parts only.",
        docs_url=None,  # its page would load scripts from the network
        redoc_url=None,
        redirect_slashes=False,  # to an address that the client has named, and without TLS
    )
    _handle_errors(app)
    _add_inspection(app, service)
    _add_status(app, service)
    _add_pages(app)
    return Gate(app, service.settings, service.metrics)


def _add_inspection(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post(
        "/predict",
        summary="Inspect one or several images",
        openapi_extra=PREDICT_BODY,
        responses=PREDICT_ANSWERS,
    )
    async def predict(
        request: Request,
        model: Annotated[
            Optional[str],  # noqa: UP045
            Query(description="Name of the model; the first one by default."),
        ] = None,
        thresh: Annotated[
            float,
            Query(description="Score in [0, 1] above which an image is anomalous."),
        ] = settings.threshold,
        heatmap: Annotated[
            bool, Query(description="Add the heatmap, a PNG to be laid over the image.")
        ] = False,
    ) -> Response:
        _check_options([name for name, _ in request.query_params.multi_items()])
        served = service.models.get(model)
        try:
            check_threshold(thresh)
        except OptionError as error:
            raise Refusal(422, str(error)) from error
        visit: Visit = request.state.visit
        stay = visit.until_sent.enter_context(service.admission.enter(visit.give_up))
        files = await service.receive(request, stay)
        options = {"threshold": thresh, "heatmap": heatmap, "max_pixels": settings.max_pixels}
        calls = [service.work(answer, served, *file, **options) for file in files]
        answers = await _within(settings.timeout, calls)
        _note(service, visit, served.name, answers)
        names = [name for name, _ in files]
        content = {"predictions": [_element(*pair) for pair in zip(names, answers, strict=True)]}
        if len(answers) == 1:
            if isinstance(answers[0], Refusal):
                raise answers[0]
            content = answers[0]
        return InPieces(_dump(content), stay)


def _check_options(given: list[str]) -> None:
    """What would be overlooked is refused: the verdict would be another one than was asked for."""
    for name in given:
        if name not in uploads.OPTIONS:
            raise Refusal(
                422, f"There is no option {name[:64]!r}. Options: {', '.join(uploads.OPTIONS)}."
            )
        if given.count(name) > 1:
            raise Refusal(422, f"The option {name!r} is given more than once.")


async def _within(
    seconds: float, calls: Iterable[Awaitable[dict[str, Any]]]
) -> list[dict[str, Any] | Refusal]:
    """All answers; a refusal of one image does not end the others."""
    try:
        async with asyncio.timeout(seconds):
            found = await asyncio.gather(*calls, return_exceptions=True)
    except TimeoutError as error:
        raise Refusal(
            503, f"There was no verdict within {seconds:g} s. Send the request again later."
        ) from error
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, Refusal):
            raise one
    return found  # type: ignore[return-value]


def _element(name: str, found: dict[str, Any] | Refusal) -> dict[str, Any]:
    if isinstance(found, Refusal):
        return {"name": name, "status": found.status, "error": found.message}
    return found


def _note(
    service: Service, visit: Visit, model: str, answers: list[dict[str, Any] | Refusal]
) -> None:
    for found in answers:
        verdict = "error"
        if isinstance(found, dict):
            verdict = "anomalous" if found["is_anomalous"] else "good"
        service.metrics.images.labels(model, verdict).inc()
    visit.seen.update(model=model, images=len(answers))


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Whether the process answers", responses=STATUS_ANSWER)
    async def health() -> Response:
        return _json({"status": "ok", "version": __version__})

    @app.get("/ready", summary="Whether images can be sent", responses=READY_ANSWERS)
    async def ready() -> Response:
        # Models are loaded before the service listens.
        if service.admission.images >= service.admission.places:
            raise Refusal(503, "The queue is full.")
        return _json({"status": "ready", "models": [served.name for served in service.models]})

    @app.get("/models", summary="The models and their limits", responses=MODELS_ANSWER)
    async def models() -> Response:
        return _json(
            {
                "models": [served.facts() for served in service.models],
                "threshold": service.settings.threshold,
            }
        )

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _add_pages(app: FastAPI) -> None:
    page = load_page()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page.response()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return render_docs(app.openapi()).response()


def _handle_errors(app: FastAPI) -> None:
    """Every error is JSON that says what to do."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return Response(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        parts = [
            f"{entry['loc'][-1]}: {entry['msg']}. Received: {str(entry.get('input'))[:100]!r}."
            for entry in error.errors()
        ]
        return _json({"error": " ".join(parts)}, 422)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        hint = {404: " See /docs for what there is.", 405: " See /docs for the methods."}
        message = f"{error.detail}.{hint.get(error.status_code, '')}"
        return _json({"error": message}, error.status_code, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        request.state.visit.broke_off = True
        return _json({"error": "The client broke off."}, 400)  # nobody reads it

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _json({"error": "The service failed; its log says why."}, 500)


def _json(
    content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(_dump(content), status, headers, "application/json")


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


class InPieces(Response):
    """Sent piece by piece, so that what a slow client has not taken is still held, and counted."""

    def __init__(self, body: bytes, stay: Stay) -> None:
        super().__init__(body, media_type="application/json")
        self._stay = stay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        self._stay.begin_answer(len(self.body))
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        for begin in range(0, len(self.body), _PIECE):
            end = begin + _PIECE
            piece = {"body": self.body[begin:end], "more_body": end < len(self.body)}
            await send({"type": "http.response.body", **piece})
            self._stay.wait_for_client()  # it has taken the piece before this one
            if piece["more_body"]:
                await asyncio.sleep(0)  # whether it has gone is noticed now

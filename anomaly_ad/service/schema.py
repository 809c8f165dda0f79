"""What the service takes and answers, as FastAPI checks, describes and serialises it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

_NAME = Field(description="The file, as the client calls it.")
_ERROR = Field(description="What is wrong and what to do.")


class Options(BaseModel):
    """The query of /predict. One that is unknown is refused: it would be overlooked."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Name of the model; the first one by default.")
    thresh: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Score above which an image is anomalous; that of the service by default.",
    )
    heatmap: bool = Field(False, description="Add the heatmap, a PNG to be laid over the image.")
    anomaly_map: bool = Field(
        False, description="Add the anomaly map, a small gray PNG, to be coloured by the client."
    )


class Region(BaseModel):
    """A connected region that deviates."""

    box: list[int] = Field(description="xyxy in pixels, x2 and y2 exclusive.")
    area: int = Field(description="In pixels.")
    score: float = Field(description="The highest value of the calibrated map in it, in [0, 1).")
    contour: list[list[int]] = Field(description="The corners of its outline, x and y in pixels.")


class Verdict(BaseModel):
    """The verdict on one image."""

    name: str = _NAME
    model: str = Field(description="Name of the model.")
    digest: str = Field(description="Of the model's directory, for records.")
    image_size: tuple[int, int] = Field(
        description="(height, width) in pixels, as a camera's orientation turns it."
    )
    is_anomalous: bool = Field(description="Whether the score exceeds the threshold.")
    confidence: float = Field(description="The score.")
    score: float = Field(
        description="In [0, 1): 0 is a typical good image, 0.8 the decision limit."
    )
    raw_score: float = Field(description="The detector's own unit.")
    threshold: float = Field(description="The score that the verdict is for.")
    boxes: list[list[int]] = Field(description="xyxy in pixels, x2 and y2 exclusive.")
    regions: list[Region] = Field(
        description="Connected regions that deviate, the highest score first; none of a good image."
    )
    reason: str | None = Field(
        None,
        description="Why the image is anomalous without the model having seen it: the part cannot "
        "be found, or not be brought into pose.",
    )
    heatmap: str | None = Field(
        None,
        description="With heatmap=true: PNG in base64, RGBA, of the image's size, to be laid over "
        "it, coloured above the threshold; null for a method without maps.",
    )
    anomaly_map: str | None = Field(
        None,
        description="With anomaly_map=true: PNG in base64, gray: 64 is the median of good images, "
        "64 + 191 * score above it, 128 / (2 + t) below it, t limits' distances down; null for a "
        "method without maps.",
    )


class Failed(BaseModel):
    """In the place of a verdict among several."""

    name: str = _NAME
    status: int = Field(description="The status that it alone would have got.")
    error: str = _ERROR


class Verdicts(BaseModel):
    """Of several images, in their order."""

    predictions: list[Verdict | Failed]


class Status(BaseModel):
    """Of the process."""

    status: str
    version: str


class Ready(Status):
    """Images can be sent."""

    models: list[str] = Field(description="Their names; the first is the default.")


class ModelFacts(BaseModel):
    """What clients may know about a model; not where it is stored."""

    name: str
    digest: str
    method: str
    input: dict[str, int | str] = Field(description="height, width, channels, and how they fit.")
    patch_size: int
    precision: str
    created: str
    median: float = Field(description="Raw score of a typical good image.")
    limit: float = Field(description="The decision limit: the raw score whose score is 0.8.")
    stated_rate: float | None = Field(description="Share of good images that may exceed it.")
    has_map: bool


class ModelList(BaseModel):
    """The models that are served."""

    models: list[ModelFacts]
    threshold: float = Field(description="The one that is used where a request names none.")


class Error(BaseModel):
    """Every error."""

    error: str = _ERROR


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """Ends a request with an HTTP status and a message, which says what to do.

    The message goes to the client, so it holds no path of the server.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def response(self) -> JSONResponse:
        """JSON, as every error of the service."""
        headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}
        return JSONResponse({"error": self.message}, self.status, headers.get(self.status))


PREDICT_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": description}
    for status, description in {
        400: "The form or the JSON cannot be read, has too many images, or holds an option.",
        401: "The token is missing or wrong.",
        403: "The file is not below a root.",
        404: "There is no such model or file.",
        408: "The request took too long to arrive.",
        413: "Too many bytes or pixels.",
        415: "Neither a multipart form nor JSON.",
        422: "An option is invalid, unknown or given twice, or the file is not an image.",
        503: "The queue is full, or there was no verdict in time; Retry-After says when to retry.",
    }.items()
}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORM = {"properties": {"image": {**_FILES, "description": "JPEG, PNG, BMP, TIFF or WebP files."}}}
PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "required": ["image"], **_FORM}},
            "application/json": {
                "schema": {"type": "object", "required": ["data"]},
                "example": {"data": {"image": "volume/image.png"}},
            },
        },
    }
}

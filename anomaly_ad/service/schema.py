"""The OpenAPI description of bodies that are read and written without pydantic."""

from __future__ import annotations

from typing import Any

_NAMED: dict[str, Any] = {"type": "string", "description": "The file, as the client calls it."}
_SCORE = "In [0, 1): 0 is a typical good image, 0.8 the limit of good."

_VERDICT: dict[str, Any] = {
    "type": "object",
    "required": [
        "is_anomalous",
        "confidence",
        "score",
        "raw_score",
        "threshold",
        "boxes",
    ],
    "properties": {
        "name": _NAMED,
        "model": {"type": "string", "description": "Name of the model."},
        "digest": {"type": "string", "description": "Of the model's directory, for records."},
        "image_size": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "(height, width) in pixels, as a camera's orientation turns it.",
        },
        "is_anomalous": {"type": "boolean", "description": "Whether it exceeds the threshold."},
        "confidence": {"type": "number", "description": f"The score. {_SCORE}"},
        "score": {"type": "number", "description": _SCORE},
        "raw_score": {"type": "number", "description": "The detector's own unit."},
        "threshold": {"type": "number", "description": "The score that the verdict is for."},
        "boxes": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}},
            "description": "xyxy in pixels of the image, x2 and y2 exclusive.",
        },
        "heatmap": {
            "type": ["string", "null"],
            "description": "With heatmap=true: PNG in base64, RGBA, of the image's size, to be "
            "laid over it; null for a method without maps.",
        },
    },
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What is wrong and what to do."}},
}
_FAILED: dict[str, Any] = {
    "type": "object",
    "required": ["name", "status", "error"],
    "properties": {
        "name": _NAMED,
        "status": {"type": "integer", "description": "The status that it alone would have got."},
        **_ERROR["properties"],
    },
}
_SEVERAL: dict[str, Any] = {
    "type": "object",
    "required": ["predictions"],
    "properties": {"predictions": {"type": "array", "items": {"oneOf": [_VERDICT, _FAILED]}}},
}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "One or several JPEG, PNG or BMP files.",
                        }
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {
                        "data": {
                            "type": "object",
                            "required": ["image"],
                            "properties": {
                                "image": {
                                    "type": "string",
                                    "description": "A file, relative to a root.",
                                }
                            },
                        }
                    },
                },
                "example": {"data": {"image": "volume/image.png"}},
            },
        },
    }
}

PREDICT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "One image: its verdict. Several: a list, in their order; one that cannot be inspected "
        "has an error in its place.",
        {"oneOf": [_VERDICT, _SEVERAL]},
    ),
    400: _answer("The form or the JSON cannot be read, or holds an option.", _ERROR),
    401: _answer("The token is missing or wrong.", _ERROR),
    403: _answer("The file is not below a root.", _ERROR),
    404: _answer("There is no such model or file.", _ERROR),
    405: _answer("Another method than POST.", _ERROR),
    408: _answer("The request took too long to arrive.", _ERROR),
    413: _answer("Too many bytes, pixels or images.", _ERROR),
    415: _answer("Neither a multipart form nor JSON.", _ERROR),
    422: _answer(
        "An option has no usable value, is unknown or given twice, or the file is no image.", _ERROR
    ),
    431: _answer("Address and headers are too large.", _ERROR),
    503: _answer(
        "The queue is full, or there was no verdict in time; Retry-After says when to try again.",
        _ERROR,
    ),
}

STATUS_ANSWER: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "Yes.",
        {
            "type": "object",
            "required": ["status"],
            "properties": {"status": {"type": "string"}},
        },
    )
}

READY_ANSWERS = STATUS_ANSWER | {503: _answer("The queue is full.", _ERROR)}

MODELS_ANSWER: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "Each with its name, digest, method, input and limits.",
        {
            "type": "object",
            "required": ["models", "threshold"],
            "properties": {
                "models": {"type": "array", "items": {"type": "object"}},
                "threshold": {
                    "type": "number",
                    "description": "The one that is used where a request names none.",
                },
            },
        },
    )
}

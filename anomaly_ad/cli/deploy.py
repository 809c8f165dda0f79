"""Commands that bring a model to other machines and programs: devices, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from .base import Json, Model, as_path, command, open_model, print_table


@command
def devices(as_json: Json = False) -> None:
    """List what can run a model here: --device takes these names, or AUTO."""
    from ..runtime.devices import available

    found = available()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_table(found)


@command
def export(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            parser=as_path,
            metavar="FILE",
            help="The file: .xml (its weights lie next to it) or .onnx.",
        ),
    ],
    to: Annotated[
        str, typer.Option(metavar="FORMAT", help="openvino, onnx or model-api.")
    ] = "openvino",
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path,
            metavar="DIR",
            help="Images that the file is compared on. [default: those of the training]",
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="f32, or f16 for a smaller file (openvino).")
    ] = "f32",
) -> None:
    """Write a model for another program. Compares the file with the model on real images."""
    from ..exports import export as run
    from ..support import say

    found = run(open_model(model), output, to, images=images, weights=weights)
    say(str(found))
    for file in found.files:
        print(file)

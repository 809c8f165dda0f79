"""Commands that bring a model to other machines and programs: devices, export, optimize."""

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


@command
def optimize(
    model: Model,
    images: Annotated[
        Path,
        typer.Option(
            parser=as_path,
            metavar="DIR",
            help="Good images, such as those of the training; labelled ones in the same folder are "
            "tested on.",
        ),
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Model directory. [default: MODEL-int8]"),
    ] = None,
    labelled: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Labelled images elsewhere; or a CSV."),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="By how much its merit may be worse, at the end of the interval.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="Of what is held out and rendered.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a model in INT8. Keeps it only if it is faster and finds no less; prints the figures."""
    from ..choosing import optimize as run

    found = run(open_model(model), images, output, labelled=labelled, margin=margin, seed=seed)
    print(found.to_json() if as_json else found)

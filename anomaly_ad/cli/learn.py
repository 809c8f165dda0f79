"""Commands that lead to a model: check, train, add-images."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..errors import OptionError
from .base import (
    EXIT_ERROR,
    Address,
    Engine,
    Groups,
    Json,
    Model,
    Name,
    Review,
    Workers,
    WorkerThreads,
    as_directory,
    as_path,
    command,
    region,
)


@command
def check(
    path: Annotated[
        Path,
        typer.Argument(
            parser=as_path, metavar="DIR", help="The folder that training would be given."
        ),
    ],
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.")
    ] = 0.01,
    outliers: Annotated[
        bool, typer.Option(help="Look for odd images among the good; needs the extra train.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Look at a data set before training. Says what to fix; status 1 if something must be."""
    from ..data.check import check as run

    found = run(path, false_alarm_rate=false_alarm_rate, outliers=outliers)
    print(found.to_json() if as_json else found)
    if found.errors:
        raise typer.Exit(EXIT_ERROR)


@command
def layout(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="mvtec, visa, btad, kolektor, kolektor2, magnetic-tile, or lookout.",
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            parser=as_path,
            metavar="ARCHIVE_OR_DIR",
            help="What you have downloaded; for lookout the manifest, or a folder of manifests.",
        ),
    ],
    path: Annotated[Path, typer.Argument(parser=as_path, metavar="DIR", help="Folder to make.")],
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path, metavar="DIR", help="For lookout: the folder of images and masks."
        ),
    ] = None,
) -> None:
    """Lay out a known data set: train, test and ground_truth. Shows its licence first."""
    from ..data.layout import layout as run

    found = run(name, source, path, images=images)
    print(found, file=sys.stderr)
    print(found.folder)


@command
def train(
    path: Annotated[
        Path, typer.Argument(parser=as_path, metavar="DIR", help="Folder of images of good parts.")
    ],
    detector: Annotated[str, typer.Option(help="Method; see `anomaly-ad detectors`.")] = "padim",
    epochs: Annotated[
        Optional[int],  # noqa: UP045 - typer reads it
        typer.Option(help="Passes over the images. [default: the method's own]"),
    ] = None,
    save_path: Annotated[
        Path,
        typer.Option(
            "--save-path", "--output", parser=as_path, help="Folder to save the model's folder in."
        ),
    ] = Path("Models"),
    name: Name = "model",
    gray_scale: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--gray-scale/--colour",
            help="Take images as gray or in colour. [default: the method's own]",
        ),
    ] = None,
    img_size: Annotated[
        Optional[tuple[int, int]],  # noqa: UP045
        typer.Option(
            metavar="HEIGHT WIDTH", help="Size of the model's input. [default: the method's own]"
        ),
    ] = None,
    patch_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Side of a patch in pixels of the model's input. [default: the method's own]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same images, seed and machine: same model.")] = 0,
    fit: Annotated[
        str, typer.Option(help="stretch, or pad: keep the aspect ratio of photographs.")
    ] = "stretch",
    value_range: Annotated[
        Optional[tuple[float, float]],  # noqa: UP045
        typer.Option(
            metavar="LOW HIGH",
            help="Values that become black and white, of images of more than 8 bits. "
            "[default: learnt from the images]",
        ),
    ] = None,
    roi: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="REGION",
            help="What is inspected: x1,y1,x2,y2 in pixels, a mask image, a JSON file of "
            "`anomaly-ad roi`, or part. [default: all]",
        ),
    ] = None,
    ignore: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="REGION", help="What is not inspected, in the same forms."),
    ] = None,
    align: Annotated[
        str, typer.Option(help="Pose: none, translation, rigid, or auto: decide by the images.")
    ] = "auto",
    normalize: Annotated[str, typer.Option(help="Light: none, gain or flatfield.")] = "none",
    tiles: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="ROWS,COLUMNS",
            help="Inspect large photographs in overlapping tiles; auto: as many as the "
            "--smallest-defect needs. [default: whole]",
        ),
    ] = None,
    tile_size: Annotated[
        Optional[tuple[int, int]],  # noqa: UP045
        typer.Option(metavar="HEIGHT WIDTH", help="The same by the size of tiles, in pixels."),
    ] = None,
    overlap: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of a tile that the next one covers as well. [default: 0.1]"),
    ] = None,
    smallest_defect: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            metavar="PIXELS",
            help="Side of the smallest defect to be found, for --tiles auto. "
            "[default: as small as the photograph shows]",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected at thresh 0.8.")
    ] = 0.01,
    precision: Annotated[
        str, typer.Option(help="Arithmetic of the model: f32, bf16 or f16.")
    ] = "f32",
    option: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME=VALUE", help="An option of the method's own; repeatable."),
    ] = None,
    groups: Groups = None,
    exclude: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path,
            metavar="FILE",
            help="Text file that names images to leave out, one in a line; see `review`.",
        ),
    ] = None,
    review: Review = True,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    worker_threads: WorkerThreads = None,
) -> None:
    """Learn from images of good parts. Prints the directory of the model that is saved."""
    own = _own_options(detector, option or [])
    from ..ad import AD

    ad = AD(
        detector,
        path,
        gray_scale,
        save_path,
        img_size,
        patch_size,
        seed=seed,
        fit=fit,  # type: ignore[arg-type]  # AD checks it
        value_range=value_range,
        roi=region(roi),
        ignore=region(ignore),
        align=align,  # type: ignore[arg-type]  # AD checks it
        normalize=normalize,  # type: ignore[arg-type]  # AD checks it
        tiles=_tiles(tiles),
        tile_size=tile_size,
        overlap=overlap,
        smallest_defect=smallest_defect,
        false_alarm_rate=false_alarm_rate,
        precision=precision,
        name=name,
        **own,
    )
    with redirect_stdout(sys.stderr):
        ad.train(
            epochs,
            groups=groups,
            exclude=exclude,
            review=review,
            engine=engine,  # type: ignore[arg-type]  # AD checks it
            address=address,
            workers=workers,
            threads=worker_threads,
        )
    print(ad.model.directory)


@command
def add_images(
    model: Model,
    path: Annotated[
        Path, typer.Argument(parser=as_path, metavar="DIR", help="Folder of images of good parts.")
    ],
    groups: Groups = None,
    review: Review = True,
) -> None:
    """Add images of good parts to a model. Exact, and the first images are not needed."""
    from ..ad import AD

    ad = AD(as_directory(model))
    with redirect_stdout(sys.stderr):
        ad.add_images(path, groups=groups, review=review)
    print(ad.model.directory)


def _tiles(text: str | None) -> Any:
    """Rows and columns, or what AD checks as it is."""
    numbers = re.fullmatch(r"\s*(\d+)\s*[,x]\s*(\d+)\s*", text or "")
    return text if numbers is None else (int(numbers[1]), int(numbers[2]))


def _own_options(detector: str, given: Iterable[str]) -> dict[str, Any]:
    from ..methods import registry

    known = registry.preset(detector).parameters  # here a path is not a model to go on with
    options = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if not equals or name not in known:
            raise OptionError(
                f"--option takes NAME=VALUE with an option of {detector}'s own: "
                f"{', '.join(known) or 'it has none'}. Received: {entry!r}."
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value  # a word
    return options

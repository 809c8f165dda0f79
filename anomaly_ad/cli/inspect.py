"""Commands that inspect images: predict, test-img."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OptionError

if TYPE_CHECKING:
    from ..inspection import Prediction
from .base import (
    EXIT_ANOMALY,
    EXIT_ERROR,
    Address,
    Check,
    DeviceName,
    Engine,
    Model,
    Threads,
    Thresh,
    Workers,
    WorkerThreads,
    as_directory,
    as_path,
    as_source,
    command,
)


@command
def predict(
    model: Model,
    path: Annotated[
        list[Path],
        typer.Argument(
            parser=as_source,
            metavar="PATH...",
            help="Image, folder (with its subfolders), or several images.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(parser=as_source, help="Where pictures and records go.")
    ] = Path("Output"),
    thresh: Thresh = 0.8,
    hardcore: Annotated[
        bool, typer.Option("--hardcore", help="Draw boxes instead of a heatmap.")
    ] = False,
    merge_boxes: Annotated[
        bool,
        typer.Option("--merge-boxes", help="With --hardcore: one outline of boxes that touch."),
    ] = False,
    regions: Annotated[
        bool, typer.Option("--regions", help="Draw outlines of what deviates instead of a heatmap.")
    ] = False,
    annotate: Annotated[
        bool, typer.Option("--annotate", help="Verdict, score and threshold above each picture.")
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="The original to the left of each picture.")
    ] = False,
    patch_size: Annotated[
        int, typer.Option(help="Side of the boxes in pixels of the model's input; 0: the model's.")
    ] = 0,
    save: Annotated[bool, typer.Option(help="Write pictures and records.")] = True,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the last such run: skip what it has recorded."),
    ] = False,
    device: DeviceName = None,
    threads: Threads = None,
    check: Check = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    worker_threads: WorkerThreads = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="With --engine ray: write pictures as well.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object per image, one a line.")
    ] = False,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option("--fail-on-anomaly", help="Exit with status 3 if an image is anomalous."),
    ] = False,
) -> None:
    """Inspect images. Prints verdict, score and path of each.

    With --engine ray it writes Parquet files with a row for each image and prints their folder;
    images and output may then be addresses such as s3://bucket/folder, and images may be listed in
    a Parquet file with a column path.
    """
    from ..ad import AD
    from ..inspection import count_verdicts, summary
    from ..support import say

    if engine != "local":
        unused = {"--json": as_json, "--no-save": not save, "--device": device, "--check": check}
        if given := [name for name, value in unused.items() if value]:
            raise OptionError(f"{', '.join(given)}: not with --engine {engine}; see docs/scale.md.")
        with redirect_stdout(sys.stderr):
            run = AD(as_directory(model), threads=threads).predict_dataset(
                path[0] if len(path) == 1 else path,
                output,
                engine=engine,  # type: ignore[arg-type]  # AD checks it
                address=address,
                workers=workers,
                threads=worker_threads,
                thresh=thresh,
                patch_size=patch_size,
                pictures=pictures,
                hardcore=hardcore,
                merge_boxes=merge_boxes,
                regions=regions,
                annotate=annotate,
                side_by_side=side_by_side,
            )
        print(run.output)
        _exit(run.counts, fail_on_anomaly)
        return
    if (address, workers, worker_threads) != (None, None, None) or pictures:
        raise OptionError(
            "--address, --workers, --worker-threads and --pictures are for --engine ray."
        )
    predictions = AD(as_directory(model), device=device, threads=threads, check=check).stream(
        path[0] if len(path) == 1 else path,
        output if save else None,
        patch_size=patch_size,
        thresh=thresh,
        hardcore=hardcore,
        merge_boxes=merge_boxes,
        regions=regions,
        annotate=annotate,
        side_by_side=side_by_side,
        resume=resume,
        progress=not sys.stdout.isatty(),  # else the lines themselves show how far it is
    )

    def shown() -> Iterable[Prediction]:
        for prediction in predictions:
            if prediction.error is not None:
                say(prediction.error)
            line = json.dumps(prediction.to_dict()) if as_json else _line(prediction)
            print(line, flush=sys.stdout.isatty())
            yield prediction

    with closing(predictions):
        counts = count_verdicts(shown())
    sys.stdout.flush()
    say(summary(counts, output if save else None))
    _exit(counts, fail_on_anomaly)


def _exit(counts: Mapping[str, int], fail_on_anomaly: bool) -> None:
    if counts["anomalous"] and fail_on_anomaly:
        raise typer.Exit(EXIT_ANOMALY)
    if counts["errors"]:
        raise typer.Exit(EXIT_ERROR)


@command
def test_img(
    model: Model,
    image: Annotated[Path, typer.Argument(parser=as_path, metavar="IMAGE", help="Image file.")],
    output: Annotated[
        Path,
        typer.Option(parser=as_path, help="Picture file (.jpg .png .bmp .webp), or folder for it."),
    ] = Path("Output"),
) -> None:
    """Look at one image as the model does. Puts it next to its reconstruction or heatmap."""
    from ..ad import AD
    from ..inspection import Inspector
    from ..inspection.output import PICTURES, picture_name, write_picture

    is_file = output.suffix.lower() in PICTURES
    target = output if is_file else output / picture_name(Path(image.name))
    if target.exists() and image.exists() and target.samefile(image):
        raise OptionError(f"{target} is the image itself. Choose another --output.")
    picture = Inspector(AD(as_directory(model)).model).compare(image)
    write_picture(picture, target)
    print(target)


def _line(prediction: Prediction) -> str:
    if prediction.error is not None:
        return f"ERROR             {prediction.path}"
    verdict = "ANOMALOUS" if prediction.is_anomalous else "good"
    return f"{verdict:9}  {prediction.score:.3f}  {prediction.path}"

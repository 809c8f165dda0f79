"""Commands that tell how good a model is: calibrate, evaluate, report, pod, drift."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import OptionError
from .base import (
    EXIT_ERROR,
    DeviceName,
    Groups,
    Json,
    Model,
    Name,
    Region,
    SavePath,
    Seed,
    Thresh,
    as_directory,
    as_path,
    command,
    open_model,
    region,
    seconds,
)


@command
def calibrate(
    model: Model,
    false_alarm_rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of good parts that may be rejected, from good images."),
    ] = None,
    good: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Good images that training has not seen."),
    ] = None,
    groups: Groups = None,
    defective: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path,
            metavar="DIR",
            help="good/ and folders of defects, or all defective: best F1.",
        ),
    ] = None,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path, metavar="CSV", help="Instead of --defective: a table path,label."
        ),
    ] = None,
    cost_ratio: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Cost of a false alarm relative to a miss: least cost, not best F1."),
    ] = None,
    limit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Set the limit by hand, as a raw score."),
    ] = None,
    another_day: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path,
            metavar="DIR",
            help="Good images of another day: count what is rejected.",
        ),
    ] = None,
    device: DeviceName = None,
) -> None:
    """Move the decision limit. From good or labelled images, or by hand; prints the directory."""
    if labels is not None and defective is not None:
        raise OptionError("--defective and --labels both name labelled images; give one of them.")
    from ..ad import AD

    ad = AD(as_directory(model), device=device)
    with redirect_stdout(sys.stderr):
        ad.calibrate(
            false_alarm_rate=false_alarm_rate,
            good=good,
            groups=groups,
            defective=defective if labels is None else labels,
            cost_ratio=cost_ratio,
            limit=limit,
            another_day=another_day,
        )
    print(ad.model.directory)


@command
def evaluate(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(
            parser=as_path,
            metavar="DIR",
            help="good/ and folders of defects, MVTec layout, or a CSV path,label.",
        ),
    ],
    thresh: Thresh = 0.8,
    seed: Seed = 0,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="HTML", help="Write a report, too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how good a model is. Counts and metrics on labelled images, with intervals."""
    from ..images.labelled import find_labelled
    from ..report.page import evaluated

    found = evaluated(open_model(model), find_labelled(path), report, threshold=thresh, seed=seed)
    print(found.to_json() if as_json else found)
    if found.errors:
        raise typer.Exit(EXIT_ERROR)


@command
def report(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(
            parser=as_path,
            metavar="DIR",
            help="Images, labelled (good/ and defects, or a CSV) or not, or predict's output.",
        ),
    ],
    output: Annotated[Path, typer.Option(parser=as_path, metavar="HTML", help="The page.")] = Path(
        "report.html"
    ),
    thresh: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Score above which an image is anomalous. [default: 0.8, or the run's]"),
    ] = None,
    seed: Seed = 0,
    pod: Annotated[
        bool,
        typer.Option("--pod", help="With the probability of detection, see `pod`; needs eval."),
    ] = False,
) -> None:
    """Show what a model does. Inspects a folder and writes one HTML page; prints its path."""
    from collections import Counter

    from ..inspection import summary
    from ..model import LIMIT_SCORE
    from ..report.page import report as run
    from ..support import say

    stored, detection = open_model(model), None
    if pod:
        from ..evaluation import detection_curve

        at = LIMIT_SCORE if thresh is None else thresh
        detection = detection_curve(stored, path, threshold=at, seed=seed)
    found = run(stored, path, output, threshold=thresh, seed=seed, detection=detection)
    if isinstance(found, Counter):
        say(summary(found, None))
        n_errors = found["errors"]
    else:
        say(str(found))
        n_errors = len(found.errors)
    print(output)
    if n_errors:
        raise typer.Exit(EXIT_ERROR)


@command
def review(
    model: Model,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path,
            metavar="HTML",
            help="The page. [default: MODEL-review.html, next to the model's directory]",
        ),
    ] = None,
) -> None:
    """Show the good images that look odd. Writes a page to choose from; prints its path."""
    from ..report.review import review as run
    from ..support import say

    written = run(open_model(model), output)
    for text in filter(None, (str(written.found), str(written))):
        say(text)
    print(written.page)


@command
def pod(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(
            parser=as_path, metavar="DIR", help="Good images, or labelled ones with good/."
        ),
    ],
    kind: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="scratch, spot, blotch, dent, patch or missing; repeatable. [default: all]"
        ),
    ] = None,
    sizes: Annotated[
        Optional[tuple[float, float]],  # noqa: UP045
        typer.Option(
            metavar="SMALLEST LARGEST",
            help="Lengths in pixels. [default: 1 and 25 % of the shorter side]",
        ),
    ] = None,
    contrast: Annotated[float, typer.Option(help="Of the defects, in gray levels.")] = 60.0,
    thresh: Thresh = 0.8,
    mm_per_pixel: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Of the photographs: lengths in millimetres."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the rendered defects.")] = 0,
    pictures: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Write pictures of some of the defects."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how large defects must be to be found. Renders them; needs the extra eval (SciPy)."""
    from ..evaluation import detection_curve

    found = detection_curve(
        open_model(model),
        path,
        kinds=kind,
        sizes=sizes,
        contrast=contrast,
        threshold=thresh,
        mm_per_pixel=mm_per_pixel,
        seed=seed,
        save_path=pictures,
    )
    print(found.to_json() if as_json else found)
    if found.errors:
        raise typer.Exit(EXIT_ERROR)


@command
def compare(
    path: Annotated[
        Path,
        typer.Argument(
            parser=as_path,
            metavar="DIR",
            help="Good images to learn from; labelled ones in the same folder are tested on.",
        ),
    ],
    detectors: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="NAME,NAME",
            help="Methods. [default: all that the budget allows, the cheapest first]",
        ),
    ] = None,
    budget: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="TIME",
            help="Such as 90s, 10m or 1h. [default: 10m; none where methods are named]",
        ),
    ] = None,
    labelled: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Labelled images elsewhere; or a CSV."),
    ] = None,
    groups: Groups = None,
    save: Annotated[
        bool, typer.Option("--save", help="Train the recommended method on all and save it.")
    ] = False,
    save_path: SavePath = Path("Models"),
    name: Name = "model",
    output: Annotated[Path, typer.Option(parser=as_path, metavar="HTML", help="The page.")] = Path(
        "comparison.html"
    ),
    seed: Annotated[int, typer.Option(help="Of the methods and of what is held out.")] = 0,
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.")
    ] = 0.01,
    roi: Region = None,
    ignore: Region = None,
    align: Annotated[str, typer.Option(help="As for train.")] = "auto",
    as_json: Json = False,
) -> None:
    """Find the method for your images. Trains several; prints a table and the recommended one."""
    from ..report.comparison import compared
    from ..support import say

    found = compared(
        path,
        output,
        detectors=detectors,
        budget=seconds(budget),
        labelled=labelled,
        groups=groups,
        save=save,
        save_path=save_path,
        name=name,
        options={
            "seed": seed,
            "false_alarm_rate": false_alarm_rate,
            "roi": region(roi),
            "ignore": region(ignore),
            "align": align,
        },
    )
    say(f"Wrote {output}")
    print(found.to_json() if as_json else found)
    if found.n_errors:
        raise typer.Exit(EXIT_ERROR)


@command
def tune(
    path: Annotated[
        Path,
        typer.Argument(
            parser=as_path,
            metavar="DIR",
            help="Good images to learn from; labelled ones in the same folder are tested on.",
        ),
    ],
    detector: Annotated[str, typer.Option(help="Method; see `anomaly-ad detectors`.")] = "padim",
    trials: Annotated[int, typer.Option(help="Those of earlier calls included.")] = 50,
    budget: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TIME", help="Such as 90s, 10m or 1h. [default: no limit]"),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="quality, latency, or both: what none beats in both.")
    ] = "quality",
    labelled: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Labelled images elsewhere; or a CSV."),
    ] = None,
    groups: Groups = None,
    storage: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path,
            metavar="FILE",
            help="SQLite file of the study. [default: MODELS/NAME-tuning.db]",
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Train with what is recommended on all and save it.")
    ] = False,
    save_path: SavePath = Path("Models"),
    name: Name = "model",
    seed: Annotated[int, typer.Option(help="Of the search, and of what is kept from it.")] = 0,
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.")
    ] = 0.01,
    roi: Region = None,
    ignore: Region = None,
    align: Annotated[str, typer.Option(help="As for train.")] = "auto",
    as_json: Json = False,
) -> None:
    """Search the options of a method. Says whether that is worth it; needs the extra tune."""
    from ..choosing import tune as run

    found = run(
        path,
        detector,
        trials=trials,
        budget=seconds(budget),
        objective=objective,
        labelled=labelled,
        groups=groups,
        storage=storage,
        save=save,
        save_path=save_path,
        name=name,
        options={
            "seed": seed,
            "false_alarm_rate": false_alarm_rate,
            "roi": region(roi),
            "ignore": region(ignore),
            "align": align,
        },
    )
    print(found.to_json() if as_json else found)


@command
def drift(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(
            parser=as_path, metavar="FILE", help="predictions.csv or predictions.jsonl."
        ),
    ],
    window: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Images per window. [default: a tenth of all, at least 30]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show whether parts or camera have changed. Needs the extra eval (SciPy)."""
    from ..evaluation.drift import drift as run

    found = run(open_model(model), path, window)
    print(found.to_json() if as_json else found)

"""The command line: results on stdout, everything else on stderr.

Exit status: 0, 1 for an error (also when an image could not be inspected), 2 for wrong usage, 3 for
an anomaly where --fail-on-anomaly asks for it, 130 after Ctrl-C.

Nothing but typer is imported before a command runs, so --help answers at once.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, ParamSpec

import typer

from ._version import __version__
from .errors import AnomalyADError, OptionError, missing_extra

if TYPE_CHECKING:
    from .inspection.prediction import Prediction
    from .model.store import StoredModel

P = ParamSpec("P")

EXIT_ERROR, EXIT_USAGE, EXIT_ANOMALY, EXIT_INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="anomaly-ad",
    help="Visual inspection that learns from images of good parts only.",
    epilog="Results go to stdout, all else to stderr. Exit status: 0; 1 for an error, or when an "
    "image could not be inspected; 2 for wrong usage; 3 for an anomaly with --fail-on-anomaly.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of `anomaly-ad` and of ``python -m anomaly_ad``."""
    _open_streams()
    # File names may hold bytes that are no text; they go out as they came in.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    app(prog_name="anomaly-ad")


def _open_streams() -> None:
    """Give stdin, stdout and stderr back where they were closed (`2>&-`); what they get is lost.

    Otherwise the next files that are opened have their numbers, and get what is meant for them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a command whose errors become a message and an exit status."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                function(*args, **kwargs)
            sys.stdout.flush()
        except AnomalyADError as error:
            _fail(str(error), EXIT_USAGE if isinstance(error, OptionError) else EXIT_ERROR)
        except KeyboardInterrupt:
            _fail("Interrupted.", EXIT_INTERRUPTED)

    app.command(name=function.__name__.replace("_", "-").rstrip("-"))(guarded)
    return guarded


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Without the place in the code, which tells nothing at the command line."""
    from .support.progress import say

    say(str(message))


def _fail(message: str, status: int) -> NoReturn:
    print(f"anomaly-ad: {message}", file=sys.stderr)
    raise typer.Exit(status)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"anomaly-ad {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def _path(text: str | Path) -> Path:
    """A path as it is given: an empty one, as of a variable that is not set, is none."""
    if not str(text):
        raise typer.BadParameter("the path is empty; '.' is the current folder")
    return Path(text)


Model = Annotated[
    Path,
    typer.Argument(parser=_path, metavar="MODEL", help="Model directory, such as Models/model."),
]
Thresh = Annotated[
    float, typer.Option(help="Score above which an image is anomalous; 0.8 = limit of good.")
]
Seed = Annotated[int, typer.Option(help="Of the resampling behind some intervals.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@_command
def check(
    path: Annotated[
        Path,
        typer.Argument(
            parser=_path, metavar="DIR", help="The folder that training would be given."
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
    """Look at a data set before training. Says what to mend; status 1 if something must be."""
    from .data.check import check as run

    found = run(path, false_alarm_rate=false_alarm_rate, outliers=outliers)
    print(found.to_json() if as_json else found)
    if found.to_mend:
        raise typer.Exit(EXIT_ERROR)


@_command
def train(
    path: Annotated[
        Path, typer.Argument(parser=_path, metavar="DIR", help="Folder of images of good parts.")
    ],
    detector: Annotated[str, typer.Option(help="Method; see `anomaly-ad detectors`.")] = "padim",
    epochs: Annotated[
        Optional[int],  # noqa: UP045 - typer reads it
        typer.Option(help="Passes over the images. [default: the method's own]"),
    ] = None,
    save_path: Annotated[
        Path,
        typer.Option(
            "--save-path", "--output", parser=_path, help="Folder that the model's goes into."
        ),
    ] = Path("Models"),
    name: Annotated[
        str, typer.Option(help="Of the model's folder; another one keeps both.")
    ] = "model",
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
) -> None:
    """Learn from images of good parts. Prints the directory of the model that is saved."""
    own = _own_options(detector, option or [])
    from .ad import AD

    ad = AD(
        detector,
        path,
        gray_scale,
        save_path,
        img_size,
        patch_size,
        seed=seed,
        fit=fit,  # type: ignore[arg-type]  # AD checks it
        false_alarm_rate=false_alarm_rate,
        precision=precision,
        name=name,
        **own,
    )
    with redirect_stdout(sys.stderr):
        ad.train(epochs)
    print(ad.model.directory)


@_command
def add_images(
    model: Model,
    path: Annotated[
        Path, typer.Argument(parser=_path, metavar="DIR", help="Folder of images of good parts.")
    ],
) -> None:
    """Add images of good parts to a model. Exactly, and without the first ones being there."""
    from .ad import AD

    ad = AD(_directory(model))
    with redirect_stdout(sys.stderr):
        ad.add_images(path)
    print(ad.model.directory)


@_command
def predict(
    model: Model,
    path: Annotated[
        list[Path],
        typer.Argument(
            parser=_path,
            metavar="PATH...",
            help="Image, folder with the folders in it, or several images.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(parser=_path, help="Where pictures and records go.")
    ] = Path("Output"),
    thresh: Thresh = 0.8,
    hardcore: Annotated[
        bool, typer.Option("--hardcore", help="Draw boxes instead of a heatmap.")
    ] = False,
    patch_size: Annotated[
        int, typer.Option(help="Side of the boxes in pixels of the model's input; 0: the model's.")
    ] = 0,
    save: Annotated[bool, typer.Option(help="Write pictures and records.")] = True,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the last such run: skip what it has recorded."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object per image, one a line.")
    ] = False,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option("--fail-on-anomaly", help="Exit with status 3 if an image is anomalous."),
    ] = False,
) -> None:
    """Inspect images. Prints verdict, score and path of each."""
    from .ad import AD
    from .inspection.inspector import count_verdicts, summary
    from .support.progress import say

    predictions = AD(_directory(model)).stream(
        path[0] if len(path) == 1 else path,
        output if save else None,
        patch_size=patch_size,
        thresh=thresh,
        hardcore=hardcore,
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
    if counts["anomalous"] and fail_on_anomaly:
        raise typer.Exit(EXIT_ANOMALY)
    if counts["errors"]:
        raise typer.Exit(EXIT_ERROR)


@_command
def test_img(
    model: Model,
    image: Annotated[Path, typer.Argument(parser=_path, metavar="IMAGE", help="Image file.")],
    output: Annotated[
        Path,
        typer.Option(parser=_path, help="Picture file (.jpg .png .bmp .webp), or folder for it."),
    ] = Path("Output"),
) -> None:
    """Look at one image as the model does. Puts it beside its reconstruction or heatmap."""
    from .ad import AD
    from .images import read_image
    from .inspection.inspector import Inspector
    from .inspection.output import PICTURES, picture_name, write_picture

    is_file = output.suffix.lower() in PICTURES
    target = output if is_file else output / picture_name(Path(image.name))
    if target.exists() and image.exists() and target.samefile(image):
        raise OptionError(f"{target} is the image itself. Choose another --output.")
    picture = Inspector(AD(_directory(model)).model).compare(read_image(image))
    write_picture(picture, target)
    print(target)


@_command
def calibrate(
    model: Model,
    false_alarm_rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of good parts that may be rejected, from good images."),
    ] = None,
    good: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=_path, metavar="DIR", help="Good images that training has not seen."),
    ] = None,
    defective: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=_path,
            metavar="DIR",
            help="good/ and folders of defects, or all defective: best F1.",
        ),
    ] = None,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=_path, metavar="CSV", help="Instead of --defective: a table path,label."
        ),
    ] = None,
    cost_ratio: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Least cost instead of best F1: of a false alarm beside a miss."),
    ] = None,
    limit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="The limit by hand, a raw score."),
    ] = None,
    another_day: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=_path, metavar="DIR", help="Good images of another day: count what is rejected."
        ),
    ] = None,
) -> None:
    """Move the limit of good. From good images, judged ones, or by hand; prints the directory."""
    if labels is not None and defective is not None:
        raise OptionError("--defective and --labels both name judged images; give one of them.")
    from .ad import AD

    ad = AD(_directory(model))
    with redirect_stdout(sys.stderr):
        ad.calibrate(
            false_alarm_rate=false_alarm_rate,
            good=good,
            defective=defective if labels is None else labels,
            cost_ratio=cost_ratio,
            limit=limit,
            another_day=another_day,
        )
    print(ad.model.directory)


@_command
def evaluate(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(
            parser=_path,
            metavar="DIR",
            help="good/ and folders of defects, MVTec layout, or a CSV path,label.",
        ),
    ],
    thresh: Thresh = 0.8,
    seed: Seed = 0,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=_path, metavar="HTML", help="Write a report, too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell how good a model is. On judged images: counts, metrics, and their intervals."""
    from .evaluation.figures import evaluate as run
    from .images.labelled import find_labelled
    from .report.page import report_judged

    stored, labelled = _stored(model), find_labelled(path)
    if report is None:
        found = run(stored, labelled, threshold=thresh, seed=seed)
    else:
        found = report_judged(stored, labelled, report, threshold=thresh, seed=seed)
    print(found.to_json() if as_json else found)
    if found.errors:
        raise typer.Exit(EXIT_ERROR)


@_command
def report(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(
            parser=_path,
            metavar="DIR",
            help="Images, judged (good/ and defects, or a CSV) or not, or predict's output.",
        ),
    ],
    output: Annotated[Path, typer.Option(parser=_path, metavar="HTML", help="The page.")] = Path(
        "report.html"
    ),
    thresh: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Score above which an image is anomalous. [default: 0.8, or the run's]"),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Show what a model does. Inspects a folder and writes one HTML page; prints its path."""
    from collections import Counter

    from .inspection.inspector import summary
    from .report.page import report as run
    from .support.progress import say

    found = run(_stored(model), path, output, threshold=thresh, seed=seed)
    if isinstance(found, Counter):
        say(summary(found, None))
        n_errors = found["errors"]
    else:
        say(str(found))
        n_errors = len(found.errors)
    print(output)
    if n_errors:
        raise typer.Exit(EXIT_ERROR)


@_command
def drift(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(parser=_path, metavar="FILE", help="predictions.csv or predictions.jsonl."),
    ],
    window: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Images looked at together. [default: a tenth of all, 30 at least]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell whether parts or camera have changed. Needs the extra eval (SciPy)."""
    from .evaluation.drift import drift as run

    found = run(_stored(model), path, window)
    print(found.to_json() if as_json else found)


@_command
def info(
    model: Model,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every file against its hash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print what a model is. Its method, limit, training, parity and versions."""
    from .ad import AD
    from .evaluation.limits import calibrated_by

    stored = AD(_directory(model)).model
    if verify:
        stored.verify()
    if as_json:
        facts = {
            **stored.manifest.to_dict(),
            "files": stored.files,
            "digest": stored.digest,
            "verified": verify,
        }
        print(json.dumps(facts, indent=2))
        return
    manifest = stored.manifest
    plan, limit, training = manifest.plan, manifest.calibration.image, manifest.training
    deviations = manifest.parity.get("deviation", {})
    size = sum(entry["size"] for entry in stored.files.values())
    lines = {
        "model": stored.directory,
        "digest": stored.digest,
        "method": " ".join([plan.method, *(f"{k}={v}" for k, v in plan.parameters.items())]),
        "input": f"{plan.spec.height}x{plan.spec.width} "
        f"{'gray' if plan.spec.channels == 1 else 'colour'}, {plan.spec.fit}, "
        f"patch {plan.patch_size}, {plan.precision}",
        "outputs": ", ".join(manifest.outputs),
        "trained": f"{manifest.created} on "
        + ", ".join(str(entry.get("source")) for entry in training.get("sets", [])),
        "images": f"{training.get('n_fit')} fitted, {training.get('n_validation', 0)} for "
        f"validation, {limit.n_images} for the limit"
        + (", cross-fitted" if "folds" in training else ""),
        "limit": f"raw score {limit.limit:.6g}; "
        + manifest.calibration.promise
        + (f" ({limit.asked_rate:.1%} asked)" if manifest.calibration.has_rate else ""),
        **calibrated_by(manifest.calibration.record),
        "parity": "deviation from the trained graph, as part of its range: "
        + ", ".join(f"{name} {value:.1e}" for name, value in deviations.items()),
        "size": f"{size / 1e6:.1f} MB in {len(stored.files)} files",
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    if verify:
        lines["verified"] = "every file is as it was saved"
    _print_table(lines)


@_command
def serve(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...", help="Model directories; the first is the default."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.")] = 8000,
    root: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            parser=_path, metavar="DIR", help="Folder below which files can be named; repeatable."
        ),
    ] = None,
    thresh: Annotated[
        float, typer.Option(help="Score above which an image is anomalous; 0.8 = limit of good.")
    ] = 0.8,
    queue: Annotated[
        int, typer.Option(help="Images that wait for their verdict; more get status 503.")
    ] = 64,
    max_bytes: Annotated[int, typer.Option(help="Largest request.")] = 32_000_000,
    max_pixels: Annotated[int, typer.Option(help="Largest image.")] = 50_000_000,
    timeout: Annotated[
        float, typer.Option(help="Seconds to send a request, to judge it, to take the answer.")
    ] = 30.0,
    token_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=_path,
            metavar="FILE",
            help="File with the token that clients send. [default: $ANOMALY_AD_TOKEN, if set]",
        ),
    ] = None,
) -> None:
    """Answer over HTTP, with a page at /. Prints the address when requests are taken."""
    from .service.settings import Settings, name_models, read_token

    settings = Settings(
        roots=tuple(root or ()),
        threshold=thresh,
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        timeout=timeout,
        token=read_token(token_file, os.environ),
    )
    directories = name_models(model)
    try:
        from .service.server import serve as run
    except ModuleNotFoundError as error:
        raise missing_extra("The service", "serve", str(error.name)) from error
    run(directories, settings, host, port)


@_command
def sample(
    path: Annotated[Path, typer.Argument(parser=_path, metavar="DIR", help="Folder to make.")],
    pose: Annotated[
        str, typer.Option(help="small: parts lie as in a fixture; any: in any rotation.")
    ] = "small",
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
) -> None:
    """Render the sample data set. For a machine without data; prints its folder."""
    from .data.sample import render_sample

    print(render_sample(path, pose=pose, seed=seed, progress=True))


@_command
def detectors(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[NAME]", help="A method, for its options and their ranges."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods and their options. With a name, what each option may be and means."""
    from dataclasses import asdict

    from .methods.registry import PRESETS, preset

    presets = PRESETS if name is None else {name: preset(name)}
    if as_json:
        print(json.dumps({key: asdict(some) for key, some in presets.items()}, indent=2))
        return
    if name is None:
        options = {
            key: ", ".join(f"{option}={value}" for option, value in some.parameters.items())
            for key, some in presets.items()
        }
        _print_table({key: f"{some.summary}. {options[key]}" for key, some in presets.items()})
        return
    print(presets[name].summary)
    rows = [("option", "default", "may be", "meaning")]
    rows += [(o.name, json.dumps(o.default), o.valid, o.meaning) for o in presets[name].options]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row[:3], widths, strict=True)]
        print("  ".join([*cells, row[3]]))


def _stored(model: Path) -> StoredModel:
    from .ad import AD

    return AD(_directory(model)).model


def _directory(model: Path) -> str:
    """A path that cannot be taken for the name of a method."""
    return str(model.absolute())


def _own_options(detector: str, given: Iterable[str]) -> dict[str, Any]:
    from .methods import registry

    known = registry.preset(detector).parameters  # here a path is no model to go on with
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


def _line(prediction: Prediction) -> str:
    if prediction.error is not None:
        return f"ERROR             {prediction.path}"
    verdict = "ANOMALOUS" if prediction.is_anomalous else "good"
    return f"{verdict:9}  {prediction.score:.3f}  {prediction.path}"


def _print_table(lines: Mapping[str, object]) -> None:
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  {text}")

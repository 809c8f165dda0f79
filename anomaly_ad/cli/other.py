"""Commands around models: info, sample, detectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    pass
from .base import EXIT_ERROR, Json, Model, as_directory, as_path, command, print_table


@command
def info(
    model: Model,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every file against its hash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Describe a model. Prints its method, limit, training, parity and versions."""
    from ..evaluation import calibrated_by
    from ..model import SAVE_PATH, Choice

    stored = Choice.of(as_directory(model), SAVE_PATH, None, {}).model
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
        "input": f"{plan.framing}, patch {plan.patch_size}, {plan.precision}",
        "outputs": ", ".join(manifest.outputs),
        "trained": f"{manifest.created} on "
        + ", ".join(str(entry.get("source")) for entry in training.get("sets", [])),
        "images": f"{training.get('n_fit')} fitted, {training.get('n_validation', 0)} for "
        f"validation, {limit.n_images} for the limit"
        + (", cross-fitted" if "folds" in training else ""),
        **_excluded(manifest.excluded),
        **_chosen(training.get("chosen")),
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
    print_table(lines)


def _excluded(names: Iterable[str]) -> dict[str, str]:
    """What a person has excluded from the training, in words; empty where that is nothing."""
    from ..images.exclusion import as_line
    from ..images.listing import LISTED

    listed = [*map(as_line, names)]
    if not listed:
        return {}
    shown = ", ".join(listed[:LISTED]) + (", ..." if listed[LISTED:] else "")
    return {"excluded": f"{len(listed)} by the user: {shown}"}


def _chosen(reason: Mapping[str, Any] | None) -> dict[str, str]:
    """Why this method or these options, in words; empty where a person has chosen."""
    return {} if reason is None else {"chosen": f"by {reason['by']}. {reason['why']}"}


@command
def doctor(
    models: Annotated[
        Path, typer.Option(parser=as_path, metavar="DIR", help="Where models are to be saved.")
    ] = Path("Models"),
    output: Annotated[
        Path, typer.Option(parser=as_path, metavar="DIR", help="Where results are to be saved.")
    ] = Path("Output"),
    as_json: Json = False,
) -> None:
    """Look at the installation. Prints what it has and lacks; status 1 for a problem."""
    from ..doctor import diagnose

    found = diagnose(models, output)
    print(json.dumps(found.to_dict(), indent=2) if as_json else found)
    if found.problems:
        raise typer.Exit(EXIT_ERROR)


@command
def sample(
    path: Annotated[Path, typer.Argument(parser=as_path, metavar="DIR", help="Folder to make.")],
    pose: Annotated[
        str, typer.Option(help="small: parts lie as in a fixture; any: in any rotation.")
    ] = "small",
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    size: Annotated[
        tuple[int, int], typer.Option(metavar="HEIGHT WIDTH", help="Of the images in pixels.")
    ] = (512, 512),
    depth: Annotated[
        int, typer.Option(help="Bits: 8 (JPEG), or 12 (in TIFF files of 16 bits).")
    ] = 8,
    defect_px: Annotated[
        Optional[tuple[float, float]],  # noqa: UP045
        typer.Option(
            metavar="SHORTEST LONGEST",
            help="Length of defects in pixels, such as 12 20. [default: in proportion to the part]",
        ),
    ] = None,
) -> None:
    """Render the sample data set. For a machine without data; prints its folder."""
    from ..data import render_sample

    print(
        render_sample(
            path, pose=pose, seed=seed, size=size, depth=depth, defect_px=defect_px, progress=True
        )
    )


@command
def detectors(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[NAME]", help="A method, for its options and their ranges."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods and their options. With a name: what each option allows and means."""
    from dataclasses import asdict

    from ..methods import PRESETS, preset

    presets = PRESETS if name is None else {name: preset(name)}
    if as_json:
        print(json.dumps({key: asdict(some) for key, some in presets.items()}, indent=2))
        return
    if name is None:
        options = {
            key: ", ".join(f"{option}={value}" for option, value in some.parameters.items())
            for key, some in presets.items()
        }
        print_table({key: f"{some.summary}. {options[key]}" for key, some in presets.items()})
        return
    own = presets[name]
    print(own.summary)
    print(
        f"{f'up to {own.epochs} epochs' if own.epochs else 'one pass'}, about {own.minutes:g} min "
        "for 200 images on two cores; "
        f"images {'can' if own.adds_images else 'cannot'} be added later; "
        f"{'takes tiles' if own.in_tiles else 'takes no tiles'}"
    )
    rows = [("option", "default", "allowed", "meaning")]
    rows += [(o.name, json.dumps(o.default), o.valid, o.meaning) for o in presets[name].options]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row[:3], widths, strict=True)]
        print("  ".join([*cells, row[3]]))

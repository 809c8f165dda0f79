import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_part, run_command, write_image, write_parts
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ad import AD
from anomaly_ad.errors import (
    DataError,
    EngineError,
    ModelError,
    OptionError,
    OutputError,
    PathError,
)
from anomaly_ad.inspection import Inspector
from anomaly_ad.scale import dataset as datasets
from anomaly_ad.scale import scoring, shards
from anomaly_ad.scale.listing import paths_of
from anomaly_ad.scale.shards import PathList, hash_of, shards_for
from anomaly_ad.scale.storage import Storage


@pytest.fixture
def parts(tmp_path):
    """A folder of 8 good and 4 defective parts."""
    write_parts(tmp_path / "parts" / "good", 8, first=300)
    write_parts(tmp_path / "parts" / "bad", 4, defect=True, first=400)
    return tmp_path / "parts"


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "_PER_SHARD", 3)


@pytest.fixture
def scored(monkeypatch):
    """The paths that were inspected."""
    seen = []
    run = Inspector.run

    def spy(self, sources, *args, **options):
        seen.extend(source.name for source in sources.items)
        return run(self, sources, *args, **options)

    monkeypatch.setattr(Inspector, "run", spy)
    return seen


def table(output):
    return pd.read_parquet(output).set_index("path")


def write_list(path, paths):
    pq.write_table(pa.table({"path": [str(p) for p in paths]}), path)
    return path


@pytest.mark.usefixtures("small_shards")
def test_rows_are_what_predict_says(trained, parts, tmp_path, capsys):
    ad = AD(trained)
    run = ad.predict_dataset(parts, tmp_path / "out")
    assert len([*(tmp_path / "out").glob("part-*.parquet")]) > 1
    found = table(tmp_path / "out")
    expected = {os.path.abspath(p.path): p for p in ad.predict(parts, save=False)}
    assert sorted(found.index) == sorted(expected)
    for path, row in found.iterrows():
        one = expected[path]
        assert row["raw_score"] == one.raw_score
        assert row["score"] == one.score
        assert row["verdict"] == ("anomalous" if one.is_anomalous else "good")
        assert [box.tolist() for box in row["boxes"]] == one.boxes.tolist()
        assert [r["area"] for r in row["regions"]] == [r.area for r in one.regions]
        assert (row["height"], row["width"]) == one.image_size
        assert (row["model"], row["threshold"]) == (ad.model.digest, 0.8)
        assert row["bytes"] == Path(path).stat().st_size
        assert row["modified"] == Path(path).stat().st_mtime_ns
    n_bad = sum(one.is_anomalous for one in expected.values())
    assert 0 < n_bad < 12
    assert run.counts == {"anomalous": n_bad, "good": 12 - n_bad}
    words = f"Inspected 12 images: {n_bad} anomalous, {12 - n_bad} good. Results:"
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("small_shards")
def test_a_second_call_goes_on(trained, parts, tmp_path, scored):
    """By path, size and time; what failed is tried again, and what is gone has no row."""
    (parts / "broken.png").write_bytes(b"none")
    ad, output = AD(trained), tmp_path / "out"
    run = ad.predict_dataset(parts, output)
    assert run.counts["errors"] == 1 and run.n_known == 0
    assert "broken.png" in table(output).loc[str(parts / "broken.png"), "error"]
    assert len(scored) == 13

    scored.clear()
    run = ad.predict_dataset(parts, output)
    assert scored == [str(parts / "broken.png")] and run.n_known == 12
    assert "12 of them were scored before and have not changed." in str(run)

    scored.clear()
    write_image(parts / "broken.png", draw_part(500))
    write_image(parts / "good" / "new.png", draw_part(501))
    first, second, *_ = sorted((parts / "good").glob("*.png"))
    first.unlink()
    write_image(second, draw_part(7, defect=True))
    os.utime(second, (1, 1))
    run = ad.predict_dataset(parts, output)
    changed = {parts / "broken.png", parts / "good" / "new.png", second}
    assert set(scored) == {*map(str, changed)}
    found = table(output)
    assert len(found) == 13 and not found["error"].notna().any()
    assert str(first) not in found.index
    assert run.n_dropped == 1 and "1 rows of an earlier call are gone" in str(run)
    assert found.loc[str(second), "verdict"] == "anomalous"


@pytest.mark.usefixtures("small_shards")
def test_an_interrupt_keeps_what_is_done(trained, parts, tmp_path, scored, monkeypatch):
    output, score, done = tmp_path / "out", scoring.Scoring._score, []

    def interrupted(self, number, inspector):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(score(self, number, inspector))
        return done[-1]

    monkeypatch.setattr(scoring.Scoring, "_score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        AD(trained).predict_dataset(parts, output)
    monkeypatch.undo()
    kept = len(table(output))
    assert 0 < kept < 12
    run = AD(trained).predict_dataset(parts, output)
    assert run.n_known == kept and len(table(output)) == 12


def test_a_list_in_parquet(trained, parts, tmp_path):
    files = sorted(parts.rglob("*.png"))
    missing = parts / "none.png"
    listed = write_list(tmp_path / "list.parquet", [*files, files[0], missing])
    run = AD(trained).predict_dataset(listed, tmp_path / "out")
    found = table(tmp_path / "out")
    assert sorted(found.index) == sorted(map(str, [*files, missing]))
    assert run.n_repeated == 1 and "each has one row" in str(run)
    assert "none.png" in found.loc[str(missing), "error"]
    assert pd.isna(found.loc[str(missing), "verdict"])
    assert pd.isna(found.loc[str(missing), "score"])


@pytest.fixture
def store(parts):
    """The same parts in a store that is known by an address; names have what addresses escape."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for file in parts.rglob("*.png"):
        name = f"/bucket/{file.parent.name}/a%20b #1 [{file.stem}].png"
        system.pipe(name, file.read_bytes())
        system.pipe(f"/bucket/ground_truth/{file.stem}_mask.png", file.read_bytes())
    yield "memory://bucket"
    system.rm("/", recursive=True)


def test_addresses(trained, parts, store, tmp_path):
    """The same scores, the names of pictures are those below the folder, and masks are none."""
    ad = AD(trained)
    run = ad.predict_dataset(store, tmp_path / "out", pictures=True)
    assert run.counts.total() == 12 and not run.counts["errors"]
    found = table(tmp_path / "out")
    for one in ad.predict(parts, save=False):
        file = Path(one.path)
        inner = f"{file.parent.name}/a%20b #1 [{file.stem}].png"
        row = found.loc[f"{store}/{inner}"]
        assert row["raw_score"] == one.raw_score
        assert row["bytes"] == file.stat().st_size
        assert row["picture"] == f"_pictures/{inner}"
        assert cv2.imread(str(tmp_path / "out" / row["picture"])) is not None
    # This store does not say when a file was changed: it is inspected again.
    assert ad.predict_dataset(store, tmp_path / "out", pictures=True).n_known == 0


def test_an_address_that_is_not_there_is_a_row(trained, store, tmp_path):
    gone, there = f"{store}/good/gone.png", f"{store}/good/a%20b #1 [000].png"
    for source in ([gone], write_list(tmp_path / "l.parquet", [gone, there])):
        output = tmp_path / f"out-{type(source).__name__}"
        AD(trained).predict_dataset(source, output)
        assert "there is no such file" in table(output).loc[gone, "error"]
    with pytest.raises(PathError, match="there is no such file or folder"):
        AD(trained).predict_dataset(f"{store}/nowhere", tmp_path / "out")


def test_results_in_a_store(trained, parts, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    for _ in range(2):
        AD(trained).predict_dataset(parts, "memory://results/today")
    system = fsspec.filesystem("memory")
    names = sorted(Path(name).name for name in system.ls("/results/today", detail=False))
    assert names == ["_dataset.json", "_list", "part-00000.parquet"]
    with system.open("/results/today/part-00000.parquet") as file:
        assert len(pd.read_parquet(file)) == 12
    system.rm("/", recursive=True)


def test_file_addresses_are_paths(trained, parts, tmp_path):
    AD(trained).predict_dataset(f"file://{parts}", f"file://{tmp_path}/out")
    assert set(table(tmp_path / "out").index) == {*map(str, parts.rglob("*.png"))}
    with pytest.raises(OptionError, match="inside, the input folder"):
        AD(trained).predict_dataset(parts, f"file://{parts}/out")
    for name, path in (("/a%20b", "/a b"), ("/a#1.png", "/a#1.png"), ("localhost/a", "/a")):
        assert Storage.of(f"file://{name}", "output").name == os.path.abspath(path)


def test_names_of_a_store():
    place = Storage.of("s3://bucket/a b/?endpoint_override=localhost:9000", "output")
    inner = place.inside("x?1.png", "y")
    assert inner.name == "s3://bucket/a b//x?1.png/y?endpoint_override=localhost:9000"
    assert place.contains(place) and not place.contains(Storage.of("/a", "output"))


def test_pictures_keep_the_names_in_the_folder(trained, parts, tmp_path):
    AD(trained).predict_dataset(parts, tmp_path / "out", pictures=True, hardcore=True)
    found = table(tmp_path / "out")
    for path, picture in found["picture"].items():
        assert picture == f"_pictures/{Path(path).relative_to(parts)}"
    expected = AD(trained).predict(parts, tmp_path / "usual", hardcore=True)
    for one in expected:
        name = Path(one.path).relative_to(parts)
        own = cv2.imread(str(tmp_path / "out" / "_pictures" / name))
        assert (own == cv2.imread(str(tmp_path / "usual" / name))).all()


def test_results_of_another_model_or_other_options_are_never_replaced(trained, parts, tmp_path):
    output = tmp_path / "out"
    AD(trained).predict_dataset(parts, output)
    before = table(output)
    for options in ({"thresh": 0.5}, {"pictures": True}):
        with pytest.raises(OutputError, match=r"another model or of other options.*Choose another"):
            AD(trained).predict_dataset(parts, output, **options)
    pd.testing.assert_frame_equal(table(output), before)
    (output / "_dataset.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        AD(trained).predict_dataset(parts, output)


def test_far_more_images_than_before(trained, parts, tmp_path, monkeypatch):
    """They would be one shard, of which nothing is kept until all of it is done."""
    AD(trained).predict_dataset(parts, tmp_path / "out")
    monkeypatch.setattr(shards, "_PER_SHARD", 2)
    monkeypatch.setattr(datasets, "_MOST_PER_SHARD", 8)
    with pytest.raises(OutputError, match=r"begun with far fewer images, in 1 files; 12 are too"):
        AD(trained).predict_dataset(parts, tmp_path / "out")


def test_a_part_without_a_result_is_an_error(trained, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.Scoring, "start", lambda self: lambda numbers: iter(()))
    with pytest.raises(EngineError, match="1 of 1 parts of the work got no result"):
        AD(trained).predict_dataset(parts, tmp_path / "out")


def test_a_picture_wider_than_its_format(trained, tmp_path):
    image = np.tile(draw_part(1), (1, 300, 1))  # 19,200 pixels: side by side more than WebP holds
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "wide.webp"), image[:, :12_000])
    AD(trained).predict_dataset(tmp_path / "in", tmp_path / "out", pictures=True, side_by_side=True)
    assert cv2.imread(str(tmp_path / "out" / "_pictures" / "wide.webp")).shape[1] == 16_383


def test_a_damaged_file_of_results_is_made_again(trained, parts, tmp_path):
    output = tmp_path / "out"
    AD(trained).predict_dataset(parts, output)
    (part,) = output.glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    run = AD(trained).predict_dataset(parts, output)
    assert run.n_known == 0 and len(table(output)) == 12


def test_nothing_is_written_into_the_input(trained, parts):
    before = sorted(parts.rglob("*"))
    (parts.parent / "link").symlink_to(parts)
    for source in (parts, [parts, parts / "bad" / "400.png"]):
        for output in (parts, parts / "out", parts.parent / "link" / "out"):
            with pytest.raises(OptionError, match=r"is, or is inside, the input folder"):
                AD(trained).predict_dataset(source, output)
    assert sorted(parts.rglob("*")) == before
    with pytest.raises(OptionError, match=r"lies in the output"):
        AD(trained).predict_dataset(sorted(parts.rglob("*.png")), parts)
    left = {p.name for p in parts.rglob("*")} - {p.name for p in before}
    assert left <= {"_lock", "_list"}  # and nothing among the images


def test_two_processes_cannot_write_the_same_results(trained, parts, tmp_path):
    with (
        datasets._alone(Storage.of(tmp_path / "out", "output")),
        pytest.raises(OutputError, match=r"Another process is writing results"),
    ):
        AD(trained).predict_dataset(parts, tmp_path / "out")


def test_a_model_that_was_replaced_is_an_error(trained, parts, tmp_path):
    stored = AD(trained).model
    sent = scoring.SentModel.of(stored)
    with pytest.raises(ModelError, match="was replaced after it was loaded"):
        scoring.SentModel(sent.files, "0" * 64).open()
    assert sent.open().digest == stored.digest


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("nowhere", PathError, "there is no such file or folder"),
        ("file:///nowhere/at/all", PathError, "there is no such file or folder"),
        ("empty", PathError, "holds no images"),
        ("odd.parquet", DataError, r"has no column 'path'. Its columns: file"),
        ("text.parquet", DataError, "is not a Parquet file that can be read"),
        ("gone.parquet", PathError, "there is no such file"),
        ("numbers.parquet", DataError, "a path is a text that is not empty. Found: 1"),
        ("none.parquet", DataError, "There are no images to score"),
        ("nosuch://bucket/x", PathError, r"addresses of nosuch:// cannot be opened here"),
        (3, OptionError, "takes a folder, an image, a Parquet file"),
        ([3], OptionError, "takes a folder, an image, a Parquet file"),
        ([], DataError, "There are no images to score"),
    ],
)
def test_what_cannot_be_scored(trained, tmp_path, monkeypatch, source, error, words):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.parquet").write_text("path")
    pq.write_table(pa.table({"file": ["a"]}), "odd.parquet")
    pq.write_table(pa.table({"path": [1]}), "numbers.parquet")
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), "none.parquet")
    with pytest.raises(error, match=words):
        AD(trained).predict_dataset(source, "out")


def test_options_are_checked_before_anything_is_read(trained, parts, tmp_path):
    ad = AD(trained)
    for options, words in [
        ({"engine": "spark"}, r"engine is one of local, ray. Received: 'spark'"),
        ({"workers": 2}, r'address and workers are for engine="ray"'),
        ({"threads": 0}, r"threads is a number from 1 to 4096"),
        ({"thresh": 2}, r"thresh"),
        ({"merge_boxes": True}, r"Give both"),
    ]:
        with pytest.raises(OptionError, match=words):
            ad.predict_dataset(parts, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_without_pyarrow(trained, parts, tmp_path, monkeypatch):
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'pyarrow' else find(name)\n"
        "from anomaly_ad import AD, MissingExtraError\n"
        f"ad = AD({str(trained)!r})\n"
        f"try: ad.predict_dataset({str(parts)!r}, {str(tmp_path / 'out')!r})\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'python -m pip install "anomaly-ad[ray]"' in done.stdout


def test_the_command_refuses_what_does_not_go_together(trained, parts, tmp_path):
    options = ("--engine", "ray", "--json", "--no-save")
    _, said = run_command("predict", trained, parts, *options, code=2)
    assert "--json, --no-save: not with --engine ray" in said
    _, said = run_command("predict", trained, parts, "--workers", "2", code=2)
    assert "are for --engine ray" in said


# ---------------------------------------------------------------------------------- shards

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(st.lists(names, min_size=1, max_size=60), st.integers(1, 9))
def test_every_path_is_in_one_shard(tmp_path_factory, paths, count):
    place = Storage.of(tmp_path_factory.mktemp("list"), "output")
    listed = PathList.write(place, paths)
    assert listed.count == len(paths)
    found = [listed.shard(number, count) for number in range(count)]
    together = [path for some in found for path in some]
    assert sorted(together) == sorted(set(paths))
    for number, some in enumerate(found):
        assert all(hash_of(path) * count // 2**32 == number for path in some)


def test_a_long_list_is_sorted_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_IN_MEMORY", 40)
    monkeypatch.setattr(shards, "_BATCH", 16)
    paths = [f"/x/{n}.png" for n in range(200)]
    listed = PathList.write(Storage.of(tmp_path, "output"), iter(paths))
    assert len(listed.names) == 5 and listed.count == 200
    assert sorted(p for n in range(7) for p in listed.shard(n, 7)) == sorted(paths)


def test_shards_grow_once_there_are_many():
    assert [shards_for(n) for n in (1, 256, 257, 10_000, 10**6, 10**9)] == [
        1,
        1,
        2,
        40,
        3907,
        16384,
    ]


def test_a_name_that_parquet_cannot_hold(tmp_path):
    with pytest.raises(DataError, match="not valid UTF-8"):
        PathList.write(Storage.of(tmp_path, "output"), ["a\udcff.png"])


def test_a_folder_and_files_may_be_named_together(parts):
    good = parts / "good"
    found = [*paths_of([good, parts / "bad" / "000.png"])]
    assert found == [*map(str, sorted(good.glob("*.png"))), str(parts / "bad" / "000.png")]


def test_what_is_written_is_whole_or_not_there(tmp_path, monkeypatch):
    place = Storage.of(tmp_path / "folder" / "file", "output")
    place.write(b"one")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OutputError, match="cannot be written"):
        place.write(b"two")
    assert place.read() == b"one"
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["file"]


def test_the_record_of_a_dataset_is_plain(trained, parts, tmp_path):
    AD(trained).predict_dataset(parts, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "_dataset.json").read_text())
    assert about["shards"] == 1 and about["about"]["threshold"] == 0.8
    assert not [*(tmp_path / "out").glob("_list/*")]

import json
import os
import shutil

import numpy as np
import pytest

from anomaly_ad import AD, ModelError, OutputError
from anomaly_ad import model_store as store
from anomaly_ad.model_store import MANIFEST, ModelWriter, load


@pytest.fixture
def model(trained, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(trained, tmp_path / "model")


def rewrite(model, change):
    """Change the manifest and make its digest fit, as someone who means harm would."""
    data = json.loads((model / MANIFEST).read_text())
    change(data)
    data["digest"] = store._digest(data)
    (model / MANIFEST).write_text(json.dumps(data))


def payload(model, suffix):
    return next(path for path in model.iterdir() if path.suffix == suffix)


def test_what_is_in_a_model_directory(trained):
    names = sorted(path.name for path in trained.iterdir())
    assert len(names) == 4 and MANIFEST in names
    data = json.loads((trained / MANIFEST).read_text())
    assert set(data["files"]) == set(names) - {MANIFEST}
    assert data["format"] == 1 and data["plan"]["method"] == "AD0"
    assert max(data["parity"]["deviation"].values()) <= 1e-4
    stored = load(trained)
    assert stored.manifest.training["n_calibration"] == 5
    assert stored.manifest.calibration.image.stated_rate == pytest.approx(1 / 6)
    stored.verify()


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_one_flipped_byte_is_found_when_loading(model, suffix):
    path = payload(model, suffix)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is not as it was saved"):
        load(model)


def test_one_flipped_byte_of_the_state_is_found_when_it_is_needed(model):
    path = payload(model, ".npz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    stored = load(model)
    with pytest.raises(ModelError, match="is not as it was saved"):
        stored.state()
    with pytest.raises(ModelError, match="is not as it was saved"):
        stored.verify()


def test_one_changed_character_of_the_manifest_is_found(model):
    text = (model / MANIFEST).read_text()
    (model / MANIFEST).write_text(text.replace('"patch_size": 16', '"patch_size": 17'))
    with pytest.raises(ModelError, match="changed after it was saved"):
        load(model)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_missing_file(model, suffix):
    payload(model, suffix).unlink()
    with pytest.raises(ModelError, match="is missing"):
        load(model)


def test_no_model(tmp_path):
    with pytest.raises(ModelError, match="holds no model"):
        load(tmp_path)
    with pytest.raises(ModelError, match="neither the name of a method"):
        AD(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "1"}', "null", "[" * 100_000])
def test_a_manifest_that_is_none(model, text):
    (model / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        load(model)


def test_a_later_format_says_to_update(model):
    rewrite(model, lambda data: data.update(format=2))
    with pytest.raises(ModelError, match="pip install --upgrade"):
        load(model)


@pytest.mark.parametrize("name", ["../outside.xml", "/etc/passwd.xml", "a/b.xml", "detector.xml"])
def test_a_name_that_leads_out_of_the_directory_is_refused(model, name):
    def rename(data):
        old = next(entry for entry in data["files"] if entry.endswith(".xml"))
        data["files"][name] = data["files"].pop(old)

    rewrite(model, rename)
    with pytest.raises(ModelError, match="no name of a file of a model"):
        load(model)


def test_a_link_out_of_the_directory_is_refused(model, tmp_path):
    path = payload(model, ".bin")
    shutil.move(path, tmp_path / "outside.bin")
    path.symlink_to(tmp_path / "outside.bin")
    with pytest.raises(ModelError, match="is missing"):
        load(model)


CHANGES = {
    "unknown method": lambda d: d["plan"].update(method="os.system"),
    "method of another type": lambda d: d["plan"].update(method=["AD0"]),
    "unknown parameter": lambda d: d["plan"]["parameters"].update(evil=1),
    "size": lambda d: d["plan"]["spec"].update(height=-5),
    "channels": lambda d: d["plan"]["spec"].update(channels=7),
    "spec": lambda d: d["plan"].update(spec=None),
    "nan limit": lambda d: d["calibration"]["image"].update(limit=None),
    "limit below median": lambda d: d["calibration"]["map"].update(limit=-1e9),
    "precision": lambda d: d["plan"].update(precision="int3"),
    "patch": lambda d: d["plan"].update(patch_size=0),
    "no files": lambda d: d.update(files={}),
    "files": lambda d: d.update(files=7),
    "entry": lambda d: [e.update(size="1") for e in d["files"].values()],
    "outputs": lambda d: d.update(outputs=["score"]),
    "a key is missing": lambda d: d["plan"].pop("seed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_that_someone_rewrote(model, name):
    rewrite(model, CHANGES[name])
    with pytest.raises(ModelError):
        load(model)


def test_keys_of_later_versions_are_passed_over(model):
    rewrite(model, lambda data: data.update(comment="line 3"))
    assert load(model).manifest.plan.method == "AD0"


# --------------------------------------------------------------------------------- saving


def save_again(model, *, seed):
    """Save the model anew with another seed in its manifest and other state."""
    import dataclasses

    stored = load(model)
    with ModelWriter(model) as writer:
        for suffix in (".xml", ".bin"):
            shutil.copy(payload(model, suffix), writer.xml.with_suffix(suffix))
        writer.write_state({"seed": np.array(seed)})
        plan = dataclasses.replace(stored.manifest.plan, seed=seed)
        writer.commit(dataclasses.replace(stored.manifest, plan=plan))


def test_saving_replaces_the_model_and_removes_what_it_no_longer_names(model):
    before = {path.name for path in model.iterdir()}
    save_again(model, seed=7)
    stored = load(model)
    stored.verify()
    assert stored.manifest.plan.seed == 7 and stored.state()["seed"] == 7
    after = {path.name for path in model.iterdir()}
    assert len(after) == 4 and before != after


def test_a_failure_at_any_step_of_saving_leaves_a_whole_model(model, monkeypatch):
    """Every system call of the commit fails once: the old model loads, or the new one."""
    steps = [(os, "replace"), (os, "fsync"), (np, "savez")]
    seen = set()
    for module, name in steps:
        for fail_at in range(12):
            real, count = getattr(module, name), 0

            def failing(*arguments, real=real, fail_at=fail_at, **options):
                nonlocal count
                count += 1
                if count == fail_at + 1:
                    raise OSError(28, "No space left on device")
                return real(*arguments, **options)

            old = load(model).manifest.plan.seed
            monkeypatch.setattr(module, name, failing)
            failed = False
            try:
                save_again(model, seed=old + 1)
            except OutputError as error:
                failed = True
                assert "No space left" in str(error)
            monkeypatch.undo()
            stored = load(model)
            stored.verify()
            assert stored.manifest.plan.seed in (old, old + 1)
            if not failed:
                assert stored.manifest.plan.seed == old + 1
            assert not list(model.glob(".unfinished-*"))
            seen.add((name, failed))
    assert {(name, True) for _, name in steps} <= seen


def test_an_interrupt_leaves_the_old_model(model):
    digest = load(model).digest
    with pytest.raises(KeyboardInterrupt), ModelWriter(model) as writer:
        writer.write_state({"a": np.zeros(3)})
        raise KeyboardInterrupt
    assert load(model).digest == digest
    assert sorted(path.suffix for path in model.iterdir()) == [".bin", ".json", ".npz", ".xml"]


def test_a_place_where_nothing_can_be_saved(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another save_path"):
        ModelWriter(tmp_path / "file" / "model").__enter__()

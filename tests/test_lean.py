"""The way of an image never touches TensorFlow, and importing the package loads nothing large."""

import subprocess
import sys

import pytest


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_large():
    out = run("import sys, anomaly_ad; print(*sys.modules)").split()
    assert not {"tensorflow", "keras", "openvino", "cv2", "numpy"} & set(out)


BLOCKED = """
import sys
for name in ("tensorflow", "keras", "scipy", "sklearn", "matplotlib"):
    sys.modules[name] = None  # importing it raises ImportError
from anomaly_ad import AD, MissingExtraError
ad = AD(sys.argv[1], sys.argv[2])
ad.predict(sys.argv[2] + "/test", sys.argv[3])
ad.test_img(sys.argv[2] + "/test/bar/200.png")
assert ad.evaluate(sys.argv[2]).auroc is not None
other = AD(sys.argv[1], save_path=sys.argv[3]).calibrate(defective=sys.argv[2] + "/test")
assert other.model.manifest.calibration.record["by"] == "best F1"
try:
    ad.drift(sys.argv[3] + "/predictions.csv")
except MissingExtraError as error:
    assert 'python -m pip install "anomaly-ad[eval]"' in str(error)
else:
    raise AssertionError
for call in (ad.train, AD("AD1", sys.argv[2]).train):
    try:
        call(1)
    except MissingExtraError as error:
        assert 'python -m pip install "anomaly-ad[train]"' in str(error)
        assert isinstance(error, ImportError)
    else:
        raise AssertionError
"""


@pytest.mark.filterwarnings("ignore")
def test_all_but_training_works_without_tensorflow(trained, dataset, tmp_path):
    assert "Inspected 8 images" in run(BLOCKED, trained, dataset, tmp_path)


def test_an_attribute_that_is_none():
    import anomaly_ad

    with pytest.raises(AttributeError, match="no attribute 'ADD'"):
        _ = anomaly_ad.ADD

"""Export a model, build the C++ example, and run it on photographs: the same verdicts.

    python examples/export.py Models/model Dataset/Washer/test/dent/000.jpg

Needs cmake, a C++ compiler, and the headers of OpenCV and nlohmann-json (on Debian:
apt install cmake g++ nlohmann-json3-dev libopencv-dev).
"""

import subprocess
import sys
from pathlib import Path

import openvino

from anomaly_ad import AD

SOURCE = Path(__file__).parent / "cpp"
CMAKE = Path(openvino.__file__).parent / "cmake"  # OpenVINO's wheel brings what C++ needs


def main(model: str, *photographs: str, build: str = "build/cpp") -> None:
    """Export, build, run, compare."""
    ad = AD(model)
    ad.export("build/part.xml")  # compared with the model on real images before it is left there
    configure = ["cmake", "-S", SOURCE, "-B", build, f"-DOpenVINO_DIR={CMAKE}"]
    subprocess.run([*configure, "-DCMAKE_BUILD_TYPE=Release"], check=True)
    subprocess.run(["cmake", "--build", build], check=True)

    done = subprocess.run(
        [f"{build}/inspect", "build/part.xml", *photographs], capture_output=True, text=True
    )
    print(done.stdout, done.stderr, sep="", end="")
    for line, photograph in zip(done.stdout.splitlines(), photographs, strict=True):
        verdict, score, *_ = line.split("\t")
        own = ad.predict(photograph, save=False)
        same = (verdict == "ANOMALOUS") == own.is_anomalous
        print(f"Python: {own.score:.4f}, C++: {score}, {'same' if same else 'OTHER'} verdict")


if __name__ == "__main__":
    main(*sys.argv[1:])

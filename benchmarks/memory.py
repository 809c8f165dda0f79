"""Peak memory of inspecting a folder, in a process of its own, for 100 and for 1,000 images.

    python benchmarks/memory.py

Renders one part at 512x512, links it as many times, and prints the peak resident memory of
AD.predict with and without saved pictures. It must not grow with the number of images, and stay
below 400 MB.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.data.sample import render_sample

PREDICT = """
import re, sys
from pathlib import Path
from anomaly_ad import AD
AD(sys.argv[1]).predict(sys.argv[2], sys.argv[3], save=sys.argv[4] == "True")
assert "tensorflow" not in sys.modules
status = Path("/proc/self/status").read_text()  # unlike ru_maxrss it knows nothing of the parent
print(int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = render_sample(folder / "sample", n_train=12, n_test_good=1, n_per_defect=0)
        AD("AD0", sample, save_path=folder).train(1)
        for save in (False, True):
            for count in (100, 1000):
                images = folder / f"images-{count}"
                images.mkdir(exist_ok=True)
                for n in range(count):
                    link = images / f"{n:04d}.jpg"
                    if not link.exists():
                        os.link(sample / "test" / "good" / "000.jpg", link)
                out = folder / f"out-{count}"
                arguments = [folder / "model", images, out, save]
                command = [sys.executable, "-c", PREDICT, *map(str, arguments)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                peak = float(done.stdout.splitlines()[-1])
                print(f"{count:>5} images, pictures saved: {save!s:5}  peak {peak:.0f} MB")


if __name__ == "__main__":
    main()

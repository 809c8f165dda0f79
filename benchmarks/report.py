"""What a report costs: seconds beyond evaluating, megabytes, and how fast its slider answers.

    python benchmarks/report.py $ANOMALY_AD_DATA/bottle

Trains padim, evaluates the labelled images without and with a report, in turn, then writes a report
of 5,000 images (the same ones again and again, as links) and moves its slider in headless Chromium.
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

from evaluate import many

from anomaly_ad import AD

ROUNDS = 5
MANY = 5000
# From moving the slider and letting it go to a page that is counted, sorted and laid out again,
# milliseconds for each position.
MOVE = """
const limit = document.getElementById("limit"), times = [];
for (let n = 0; n < 100; n++) {
  limit.value = n / 100;
  const start = performance.now();
  for (const kind of ["input", "change"]) limit.dispatchEvent(new Event(kind, { bubbles: true }));
  document.body.offsetHeight;
  times.push(performance.now() - start);
}
return times;
"""


def slider(page: Path) -> list[float]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from conftest import chromium

    with tempfile.TemporaryDirectory() as profile:
        browser = chromium(profile)
        if browser is None:
            raise SystemExit("chromium and chromedriver are needed to move the slider")
        try:
            start = time.perf_counter()
            browser.get(page.as_uri())
            print(f"    opened in {time.perf_counter() - start:.1f} s")
            return browser.execute_script(MOVE)
        finally:
            browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ad = AD("padim", options.data, save_path=folder).train()
        page = folder / "report.html"
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for with_report, taken in seconds.items():
                start = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):
                    ad.evaluate(options.data, report=page if with_report else None)
                taken.append(time.perf_counter() - start)
        more = statistics.median(b - a for a, b in zip(*seconds.values(), strict=True))
        print(
            f"\n{options.data.name}: evaluate {statistics.median(seconds[False]):.2f} s, with a "
            f"report {more:.2f} s more; {page.stat().st_size / 1e6:.1f} MB",
            flush=True,
        )
        large = many(options.data, folder / "many", MANY)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            ad.report(large, page)
        print(
            f"{MANY} images: {time.perf_counter() - start:.0f} s, "
            f"{page.stat().st_size / 1e6:.1f} MB",
            flush=True,
        )
        times = slider(page)
        print(
            f"    the slider answers in {statistics.median(times):.0f} ms, the slowest time in "
            f"{max(times):.0f} ms"
        )


if __name__ == "__main__":
    main()

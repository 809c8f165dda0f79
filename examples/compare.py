"""Find the method for your parts: train some, see what each finds, keep the recommended one.

    python examples/compare.py Dataset/Washer padim patchcore dfkde

The folder is laid out as train/ (good parts) and, if there are any, test/good and test/<defect>.
Without labelled defects, defects are rendered. Writes comparison.html and Models/best.
"""

import sys

from anomaly_ad import AD


def main(folder: str, *methods: str) -> None:
    """Compare, say why, and save."""
    found = AD.compare(folder, methods or None, save=True, name="best", report="comparison.html")
    print(f"\nRecommended: {found.recommended}")
    ad = AD("Models/best")
    ad.evaluate(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])

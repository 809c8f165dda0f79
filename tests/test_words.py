"""The words of messages, documents and names are the field's, and plain English."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("anomaly_ad", "docs", "examples", "benchmarks", "README.md", "Example.py", "CHANGELOG.md")
TEXTS = {".py", ".md", ".html", ".js", ".css", ".ipynb", ".conf", ".service"}

# What is not said, and what is said instead.
WORDS = {
    r"\w*judg\w*": "labelled, scored, decided",
    r"besides?": "next to, compared with",
    r"anew": "again",
    r"mend(ed|s|ing)?|to_mend": "error, fix",
    r"spoil\w*": "corrupted",
    r"in the house": "in flight",
    r"visits?|witness(es)?|albums?": "request, observer, thumbnails",
    r"limits? of good": "decision limit",
    # "There is no limit" is English, "a mask is no image" is not.
    r"(?<!there )(is|are|was|were) no(?! (longer|more)\b)": "is not a",
}
# Names of classes, where the word would be ordinary in a sentence.
NAMES = {r"class Gate\b": "middleware"}
ORDINARY = (
    "leaves besides the detector",  # in addition to
    "CHANGELOG.md: - Words of the field",  # says what the words were
)


def lines():
    for place in PLACES:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in TEXTS:
                for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                    yield file.relative_to(ROOT), number, line


@pytest.mark.parametrize(("word", "instead"), (WORDS | NAMES).items())
def test_words(word, instead):
    pattern = re.compile(word if word in NAMES else rf"\b(?:{word})\b", re.IGNORECASE)
    found = [
        f"{file}:{number}: {line.strip()[:100]}"
        for file, number, line in lines()
        if pattern.search(line) and not any(some in f"{file}: {line}" for some in ORDINARY)
    ]
    assert not found, f"say {instead}:\n" + "\n".join(found)


def test_names_of_modules():
    wrong = re.compile("|".join(WORDS), re.IGNORECASE)
    assert not [p for p in (ROOT / "anomaly_ad").rglob("*.py") if wrong.fullmatch(p.stem)]

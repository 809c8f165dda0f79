"""What the name of a folder, or a label, says of the images under it.

Names are read word by word, whatever stands between the words: "0_OK", "good parts", "i.O." and
"GutTeile" are good; "not_ok", "n.i.O.", "def_front" and "abnormal" are not. docs/data.md lists the
words.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Meaning = Literal["good", "defective", "unclear", "neutral"]


def _plain(text: str) -> str:
    """In lower case and without accents."""
    split = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", "".join(c for c in split if not unicodedata.combining(c)))


def _words(text: str) -> frozenset[str]:
    return frozenset(_plain(text).split())


_GOOD = _words(
    # English
    "good goods go ok oks okay normal normals nominal pass passed passes accept accepted "
    "acceptable "
    "conform conforming conformant compliant correct healthy intact perfect flawless faultless "
    "defectfree undamaged unbroken "
    # German
    "io gut gute guten gutteil gutteile ordnung fehlerfrei defektfrei einwandfrei normale "
    # French, Italian, Spanish, Portuguese
    "bon bonne bons bonnes conforme conformes conformi buono buona buoni buone bueno buena buenos "
    "buenas bien bom boa boas normales normali normais correcto correcta "
    # Dutch, Swedish, Danish, Norwegian, Finnish, Polish, Czech, Turkish, Russian
    "goed goede godkand godkendt godkjent hyva dobry dobra dobre dobrze iyi saglam "
    "годен годные годная хорошо хорошие норма "
    # Chinese, Japanese, Korean
    "良品 合格 合格品 正常 正常品 良 好 ok品 양품 정상 합격"
)
# Words that judge: what is said not to have them is good ("no_defect", "defect-free").
_BAD = _words(
    "bad ng nok ko nio def defect defects defective defectives fail fails failed failure failures "
    "fault faults faulty flaw flaws flawed anomaly anomalies anomalous abnormal abnormals "
    "abnormality "
    "reject rejects rejected scrap scrapped damage damages damaged error errors wrong imperfection "
    "schlecht schlechte schlechtteil schlechtteile fehler fehlerhaft fehlerhafte defekt defekte "
    "ausschuss schrott anomalie anomalien mangel mangelhaft "
    "mauvais mauvaise defaut defauts defectueux defectueuse anormal anormaux rebut rebuts "
    "cattivo difetto difetti difettoso difettosi scarto scarti anomalia anomalias malo mala malos "
    "malas defecto defectos defectuoso defectuosos rechazo rechazos rechazado chatarra ruim "
    "defeito "
    "defeitos defeituoso refugo rejeitado "
    "slecht slechte fout fouten afkeur daalig darlig felaktig underkand kasseret vika vad "
    "wada wady "
    "zly zle wadliwy vada vadny hiba hibas hata hatali kusurlu брак дефект дефекты плохо плохие "
    "不良 不良品 不合格 不合格品 异常 異常 缺陷 欠陥 次品 ng品 불량 불량품 이상"
)
# Words that name a defect and hardly anything else.
_KINDS = _words(
    "scratch scratches scratched crack cracks cracked dent dents dented stain stains stained "
    "broken "
    "contamination contaminated corrosion corroded rust rusty misplaced missing deformed "
    "deformation "
    "blowhole blowholes kratzer riss risse beule beulen verschmutzung verunreinigung rayure "
    "rayures "
    "fissure fissures graffio graffi crepa aranazo grieta riscos"
)
_NOT = _words(
    "not no n non none un nicht kein keine keinen pas sans sin sem senza ohne without zonder "
    "niet geen ikke "
    "ikkje inte utan nie nao bez 不 非 无 無"
)
_NOT_BEHIND = _words("not nicht pas niet ikke inte")
_NOT_JOINED = ("not", "non", "no", "nicht", "un", "in", "im", "ab", "a", "不")
_FREE = _words("free frei libre exempt")
_BETWEEN = _words("in i so very tout the a an any")
# Words that may mean good, and may not; and the beginnings of such.
_PERHAPS = _words(
    "clean fine reference ref master golden gold standard ideal baseline sample samples none "
    "nothing"
)
_PERHAPS_BEGINNINGS = ("good", "okay", "okteil", "okpart", "normal", "gutteil", "conform")

TRAIN = frozenset({"train", "training"})
TEST = frozenset({"test", "tests", "testing"})
_MASKS = frozenset(
    {
        "mask",
        "masks",
        "maske",
        "masken",
        "label",
        "labels",
        "groundtruth",
        "groundtruths",
        "gt",
        "gts",
    }
    | {"annotation", "annotations", "segmentation", "segmentations", "segmask", "segmasks"}
    | {"defectmask", "defectmasks", "maskimages", "labelimages"}
)
_MASK_ENDING = re.compile(
    r"(.+?)[ ._-]+(?:mask|maske|gt|label|labels|seg|segmentation|ground[ _-]?truth|annotation)",
    re.IGNORECASE,
)


def meaning(name: str) -> Meaning:
    """What a folder's name, or a label, says.

    Returns
    -------
    {"good", "defective", "unclear", "neutral"}
        "unclear": it may mean good, but does not say so plainly; it is not taken for good.
        "neutral": it says nothing of it, such as "cam1" or "parts".

    >>> [meaning(name) for name in ("ok_front", "not_ok", "n.i.O.", "no_defect", "monday")]
    ['good', 'defective', 'defective', 'good', 'neutral']
    """
    # "NotOk" is two words, and "niO" is one: both ways of reading count.
    readings = {_read(_tokens(name)), _read(_tokens(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)))}
    order: tuple[Meaning, ...] = ("defective", "good", "unclear")
    return next((found for found in order if found in readings), "neutral")


def _tokens(name: str) -> list[str]:
    """Words and numbers; letters that stand alone in a row are one word ("n.i.O.")."""
    tokens: list[str] = []
    letters = ""
    for token in [*re.findall(r"[^\W\d_]+|\d+", _plain(name)), ""]:
        if len(token) == 1 and token.isascii() and token.isalpha():
            letters += token
            continue
        tokens += [letters] if letters else []
        tokens += [token] if token else []
        letters = ""
    return tokens


def _read(tokens: list[str]) -> Meaning:
    negated = [_is_negated(tokens, place) for place in range(len(tokens))]
    is_good = [token in _GOOD for token in tokens]
    is_free = any(token in _FREE for token in tokens)
    bad, lifted = False, False
    for token, no in zip(tokens, negated, strict=True):
        if token in _BAD:
            bad, lifted = bad or not (no or is_free), lifted or no or is_free
        elif token in _KINDS:
            bad = bad or not (no or is_free)
        elif token in _GOOD:
            bad = bad or no
        elif rest := _without_negation(token):
            bad, lifted = bad or rest in _GOOD, lifted or rest in _BAD
    if bad:
        return "defective"
    if any(is_good):
        last = max(n for n, good in enumerate(is_good) if good)
        behind = [token for token in tokens[last + 1 :] if token in _NOT_BEHIND]
        if behind and tokens[-1] in _NOT_BEHIND:
            return "defective"
        before = any(_is_negation(tokens, n) for n in range(len(tokens)))
        return "unclear" if behind or (before and not lifted) else "good"
    if lifted:
        return "good"
    perhaps = any(t in _PERHAPS or t.startswith(_PERHAPS_BEGINNINGS) for t in tokens)
    return "unclear" if perhaps else "neutral"


def _is_negation(tokens: list[str], place: int) -> bool:
    """Whether the word there negates; "no 1" is a number."""
    numbered = place + 1 < len(tokens) and tokens[place + 1].isdigit()
    return tokens[place] in _NOT and not (tokens[place] == "no" and numbered)


def _is_negated(tokens: list[str], place: int) -> bool:
    before = place - 1
    while before >= 0 and tokens[before] in _BETWEEN:
        before -= 1
    return before >= 0 and _is_negation(tokens, before)


def _without_negation(word: str) -> str:
    """What a joined negation negates: "normal" of "abnormal"; empty for any other word."""
    for prefix in _NOT_JOINED:
        rest = word.removeprefix(prefix)
        if rest != word and (
            rest in _GOOD or (rest in _BAD and prefix in ("not", "non", "no", "un"))
        ):
            return rest
    return ""


def is_for_masks(name: str) -> bool:
    """Whether a folder of this name is usually one of masks."""
    return re.sub(r"[\W\d_]+", "", _plain(name)) in _MASKS


def masked_name(stem: str) -> str | None:
    """The image's name in that of a mask (000_mask, 000_GT, 000-label); None for other names."""
    found = _MASK_ENDING.fullmatch(stem)
    return found[1] if found else None

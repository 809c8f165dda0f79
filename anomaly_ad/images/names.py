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


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in _plain(line).split())


_GOOD = _words(
    "good ok oks okay normal nominal passed accept accepted acceptable approved qualified",
    "conforming conformant compliant healthy intact perfect flawless faultless undamaged",
    "unbroken gut gute guten gutteil gutteile ordnung fehlerfrei fehlerfreie fehlerfreien",
    "defektfrei einwandfrei einwandfreie einwandfreien freigegeben normale normales bonne",
    "bonnes conforme conformes conformi buono buona buoni buone bueno buena buenos buenas",
    "normali normais correcto correcta apto aptos sano sanos goed goede godkand godkanda",
    "godkendt godkjent hyva hyvaksytty dobry dobra dobre dobrze iyi saglam годен годные",
    "годная хорошо хорошие норма",
)
# Good as well, but in other words they mean something else: io_module, first_pass, goods_in.
_GOOD_ALONE = _words(
    "io go pass passes goods normals correct conform bon bons bom boa bien defectfree",
)
# Words for what is wrong: what is said not to have it is good ("no_defect", "defect-free").
_BAD = _words(
    "bad ng nok ko nio notok nonok nichtok nichtio nogood defect defects defective defectives",
    "fail fails failed failure failures fault faults faulty flaw flaws flawed anomaly",
    "anomalies anomalous abnormal abnormals abnormality reject rejects rejected scrap",
    "scrapped damage damages damaged error errors wrong imperfection imperfections schlecht",
    "schlechte schlechtteil schlechtteile fehler fehlerhaft fehlerhafte defekt defekte",
    "defekten ausschuss schrott anomalie anomalien mangel mangelhaft mauvais mauvaise defaut",
    "defauts defectueux defectueuse anormal anormaux rebut rebuts cattivo difetto difetti",
    "difettoso difettosi scarto scarti anomalia anomalias malo mala malos malas defecto",
    "defectos defectuoso defectuosos rechazo rechazos rechazado chatarra ruim defeito",
    "defeitos defeituoso refugo rejeitado slecht slechte fout fouten afkeur daalig darlig",
    "felaktig underkand kasseret vika wada wady zly zle wadliwy vada vadny hiba hibas hata",
    "hatali kusurlu брак дефект дефекты дефектов плохо плохие",
)
_COUNTED = _words("defects faults flaws errors fehler defekte defauts difetti defectos anomalies")
_BAD_ALONE = _words(
    "def vad",
)
# Words that name a defect and hardly anything else.
_KINDS = _words(
    "scratch scratches scratched crack cracks cracked dent dents dented stain stains stained",
    "broken contamination contaminated corrosion corroded rust rusty misplaced missing",
    "deformed deformation blowhole blowholes kratzer kratzern riss risse beule beulen",
    "verschmutzung verunreinigung rayure rayures fissure fissures graffio graffi crepa",
    "aranazo grieta riscos",
)
# Words that make good doubtful: they name features that may be defects, or take part of it back.
_DOUBTFUL = _words(
    "hole holes chip chipped bent burr burrs dirt dirty dust dusty spot spots cut cuts fold",
    "false falsch pseudo never almost nearly hardly less maybe unknown unsure doubtful",
    "questionable unsicher be bedingt grenzwertig teilweise fraglich nachgearbeitet rework",
    "reworked repair repaired presque quasi casi wrongly unbrauchbar limit borderline poor",
    "half pending expected irregular reserva unchecked unverified candidate huono kotu",
    "untested ungepruft",
)
_NOT = _words(
    "not no non nicht kein keine keinen pas aucun sans sin sem senza ohne without zonder niet",
    "geen ikke ikkje inte icke ej ei utan nie ne nao bez zero degil не без нет neni hors nem",
)
# They take good back ("n_ok"), but say nothing of a defect ("un defaut" is one, "n_ng" a place).
_NOT_OF_GOOD = _words("n un none")
_NOT_BEHIND = _words(
    "not nicht pas niet ikke inte degil false",
)
_NOT_JOINED = ("not", "non", "no", "nicht", "un", "in", "im", "ab", "a", "ne", "nie", "не")
_FREE = _words(
    "free frei libre exempt",
)
_BETWEEN = _words(
    "in i so very tout the a an any de d of von des",
)
# Words that tell nothing next to one that does.
_HARMLESS = _words(
    "part parts piece pieces product products sample samples image images img imgs photo",
    "photos picture pictures front back rear left right top bottom side inner outer cam",
    "camera cameras view line station day week shift batch lot set group class kind new old",
    "data only all from of and the teil teile bild bilder vorne hinten links rechts oben",
    "unten seite kamera linie charge los tag und piezas pieza pezzo pezzi immagini imagenes",
    "avant arriere gauche droite cote lado frente lato monday tuesday wednesday thursday",
    "friday saturday sunday january february march april may june july august september",
    "october november december mon tue wed thu fri sat sun jan feb mar apr jun jul aug sep",
    "oct nov dec montag dienstag mittwoch donnerstag freitag lundi mardi mercredi jeudi",
    "vendredi morning evening night frueh spaet nacht train training test",
)
# Words that may mean good, and may not; and the beginnings of such.
_PERHAPS = _words(
    "clean fine reference ref master golden gold standard ideal baseline none nothing free",
    "negative neg",
)
_PERHAPS_BEGINNINGS = ("good", "okay", "okteil", "okpart", "normal", "gutteil", "conform")
# Written without spaces; a negation stands before the word, or behind it.
_GOOD_SIGNS = ("良品", "良好", "合格", "正常", "正品", "양품", "양호", "정상", "합격")
_BAD_SIGNS = ("不良", "缺陷", "欠陥", "异常", "異常", "次品", "瑕疵", "불량", "이상", "결함")
_NOT_SIGNS = ("不", "非", "未", "无", "無", "没有", "비", "불", "부", "무")
_NONE_SIGNS = ("なし", "없음")
_PLAIN_SIGNS = frozenset(
    "品件板图圖画像片样样本产産零部组組类左右上下前后後面号號画제부품이미지사진"
)

_TRAIN = _words(
    "train training trainset traindata trainingsdaten entrainement 训练 训练集 训练数据",
)
_TEST = _words(
    "test tests testing testset testdata testdaten 测试 测试集 测试数据",
)
_MASK_WORDS = _words(
    "mask masks maske masken masque masques maschera maschere mascara mascaras gt gts",
    "groundtruth segmentation segmentations segmentationclass segmask segmasks defectmask",
    "defectmasks seg annotation annotations 标注 掩码",
)
_LABEL_WORDS = _words(
    "label labels",
)
_BESIDE_MASK = _words(
    "png bin binary image images img gt defect defects anomaly pixel pixels ng instance",
    "semantic class classes ground truth test train label labels object objects mask masks",
    "seg",
)
_BESIDE_LABEL = _words(
    "png image images img train test class pixel bin binary",
)
_MASK_ENDING = re.compile(
    r"(.+?)[ ._-]+(?:mask|maske|gt|label|labels|seg|segmentation|ground[ _-]?truth|annotation)",
    re.IGNORECASE,
)
_MASK_BEGINNING = re.compile(r"(?:mask|gt|label|seg)[ ._-]+(.+)", re.IGNORECASE)


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
    readings = {_read(_tokens(name)), _read(_tokens(_split_camels(name)))}
    order: tuple[Meaning, ...] = ("defective", "good", "unclear")
    return next((found for found in order if found in readings), "neutral")


def _split_camels(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


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
    good = bad = lifted = doubtful = perhaps = False
    for place, token in enumerate(tokens):
        said = _said(token, _others(tokens, place))
        no, free = _is_negated(tokens, place), _is_free(tokens, place)
        if said == "good":
            no = no or _before(tokens, place) in _NOT_OF_GOOD
            good, bad = good or not no, bad or no
        elif said == "bad":
            counted = place == 1 and _is_zero_of(tokens)
            bad, lifted = bad or not (no or free or counted), lifted or no or free or counted
            doubtful = doubtful or (no and free) or counted
        doubtful = doubtful or said == "doubtful"
        perhaps = perhaps or (said == "doubtful" and not token.isascii())
    negations = [token for token in tokens if token in _NOT or token in _NOT_OF_GOOD]
    if bad or (good and tokens[-1] in _NOT_BEHIND):
        return "defective"
    if good or lifted:
        # A negation that belongs to nothing, or two of them, may take back what is said.
        loose = len(negations) > 1 if lifted else bool(negations)
        is_plain = not (loose or doubtful or any(t in _NOT_BEHIND for t in tokens[1:-1]))
        return "good" if is_plain else "unclear"
    perhaps = perhaps or tokens in (["yes"], ["no"])  # to a question that is not known
    perhaps = perhaps or any(t in _PERHAPS or t.startswith(_PERHAPS_BEGINNINGS) for t in tokens)
    weak = any(token in _GOOD_ALONE for token in tokens)
    return "unclear" if perhaps or weak else "neutral"


def _others(tokens: list[str], place: int) -> list[str]:
    return [token for n, token in enumerate(tokens) if n != place]


def _said(token: str, others: list[str]) -> Literal["good", "bad", "doubtful", ""]:
    """What one word says."""
    plain = all(other in _HARMLESS or other in _NOT or other in _NOT_OF_GOOD for other in others)
    numbered = all(other.isdigit() or other in _HARMLESS for other in others) and token != "pass"
    if token in _GOOD or (token in _GOOD_ALONE and (plain or numbered)):
        return "good"
    if token in _BAD or token in _KINDS or (token in _BAD_ALONE and (plain or numbered)):
        return "bad"
    if token in _DOUBTFUL:
        return "doubtful"
    if not token.isascii() and (said := _said_in_signs(token, others)):
        return said
    for prefix in _NOT_JOINED:
        rest = token.removeprefix(prefix)
        if rest != token and len(rest) >= 4:
            if rest in _GOOD:
                return "bad"
            if rest in _BAD and prefix in ("not", "non", "no", "un"):
                return "good"
    return ""


def _said_in_signs(token: str, others: list[str]) -> Literal["good", "bad", "doubtful", ""]:
    """What a word says that is written in signs; such words stand without spaces."""
    if token in ("良", "好"):
        return "good"
    if (latin := token.strip("".join(_PLAIN_SIGNS))) != token and latin.isascii() and latin:
        return _said(latin, others)
    for sign in _BAD_SIGNS:
        before, found, behind = token.partition(sign)
        if found:
            negated = before in _NOT_SIGNS or behind in _NONE_SIGNS
            rest = set((behind if before in _NOT_SIGNS else before) if negated else "")
            return "bad" if not negated else "good" if rest <= _PLAIN_SIGNS else "doubtful"
    for sign in _GOOD_SIGNS:
        before, found, behind = token.partition(sign)
        if found:
            if before.endswith(_NOT_SIGNS):
                return "bad"
            return "good" if set(before + behind) <= _PLAIN_SIGNS else "doubtful"
    return ""


def _before(tokens: list[str], place: int) -> str:
    """The word before, past those that only join; empty if there is none."""
    before = place - 1
    while before >= 0 and tokens[before] in _BETWEEN:
        before -= 1
    return tokens[before] if before >= 0 else ""


def _is_negated(tokens: list[str], place: int) -> bool:
    return _before(tokens, place) in _NOT


def _is_free(tokens: list[str], place: int) -> bool:
    """Whether that word is what something is free of: "defect free", "free of defects"."""
    behind = tokens[place + 1] if place + 1 < len(tokens) else ""
    of, free = [*reversed(tokens[:place]), "", ""][:2]
    return behind in _FREE or (free in _FREE and of in ("of", "from", "von", "de"))


def _is_zero_of(tokens: list[str]) -> bool:
    """Whether it begins like "0 defects": that may be none, or the number of a class."""
    return tokens[0].isdigit() and int(tokens[0]) == 0 and tokens[1] in _COUNTED


def is_plainly_good(name: str) -> bool:
    """Whether a name says good and nothing else but what tells nothing, such as a camera."""
    tokens = [t for t in _tokens(_split_camels(name)) if not t.isdigit() and t not in _HARMLESS]
    return meaning(name) == "good" and all(t in _GOOD or t in _GOOD_ALONE for t in tokens)


def _is_only(name: str, words: frozenset[str]) -> bool:
    """Whether a name is one of these words, alone or with some that tell nothing."""
    tokens = _tokens(_split_camels(name))
    rest = [token for token in tokens if token not in words]
    # train_good is a part of the training set.
    known = _HARMLESS | _GOOD | _GOOD_ALONE | _BAD | _BAD_ALONE
    return len(rest) < len(tokens) and all(t in known or t.isdigit() for t in rest)


def is_for_training(name: str) -> bool:
    """Whether a folder of this name holds the images that a model learns from."""
    return _is_only(name, _TRAIN)


def is_for_test(name: str) -> bool:
    """Whether a folder of this name holds the labelled images."""
    return _is_only(name, _TEST)


def is_for_masks(name: str) -> bool:
    """Whether a folder of this name is usually one of masks."""
    tokens = [token for token in _tokens(_split_camels(name)) if not token.isdigit()]
    if "".join(tokens) in _MASK_WORDS | _LABEL_WORDS:
        return True
    is_named = any(token in _MASK_WORDS for token in tokens) or tokens[:2] == ["ground", "truth"]
    if is_named:  # good_masks, crack_mask, and the like
        telling = _GOOD | _GOOD_ALONE | _BAD | _BAD_ALONE | _KINDS
        return all(t in _BESIDE_MASK | _MASK_WORDS | _LABEL_WORDS | telling for t in tokens)
    # A label may be a part of the product: label_defect is not a folder of labels.
    is_named = any(token in _LABEL_WORDS for token in tokens)
    return is_named and all(t in _LABEL_WORDS | _BESIDE_LABEL for t in tokens)


def without_mask_words(name: str) -> list[str]:
    """The words of a folder of masks that tell whose masks: ["good"] of "good_masks"."""
    words = _MASK_WORDS | _LABEL_WORDS | _BESIDE_MASK
    return [token for token in _tokens(_split_camels(name)) if token not in words]


def words_of(name: str) -> list[str]:
    """The words of a name, as they are compared."""
    return _tokens(_split_camels(name))


def masked_name(stem: str) -> str | None:
    """The image's name in that of a mask (000_mask, 000_GT, 000-label); None for other names."""
    found = _MASK_ENDING.fullmatch(stem)
    return found[1] if found else None


def masked_name_behind(stem: str) -> str | None:
    """The image's name in that of a mask such as mask_000; None for other names."""
    found = _MASK_BEGINNING.fullmatch(stem)
    return found[1] if found else None

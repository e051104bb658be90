"""Guess the encoding of a text that is not UTF-8."""

from __future__ import annotations

import codecs
import re

LATIN, CYRILLIC, GREEK = "A-Za-z\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\u024f", "\u0400-\u04ff", "\u0370-\u03ff"
KANA, HAN, HANGUL = "\u3041-\u30ff", "\u4e00-\u9fff", "\uac00-\ud7a3"
# iconv's name, Python's, the letters beyond ASCII, and of an encoding of two bytes the first bytes of usual characters.
# Where two fit, the first counts as more likely.
ENCODINGS: list[tuple[str, str, str, range | None]] = [
    ("CP1252", "cp1252", LATIN, None),
    ("MACINTOSH", "mac_roman", LATIN, None),
    ("CP1250", "cp1250", LATIN, None),
    ("CP850", "cp850", LATIN, None),
    ("CP1254", "cp1254", LATIN, None),
    ("CP1251", "cp1251", CYRILLIC, None),
    ("KOI8-R", "koi8_r", CYRILLIC, None),
    ("CP1253", "cp1253", GREEK, None),
    ("CP932", "cp932", KANA + HAN, range(0x81, 0x99)),
    ("EUC-KR", "euc_kr", HANGUL, range(0xA1, 0xC9)),
    ("EUC-JP", "euc_jp", KANA + HAN, range(0xA1, 0xD0)),
    ("GB18030", "gb18030", HAN, range(0xA1, 0xD8)),
    ("BIG5", "big5", HAN, range(0xA1, 0xC7)),
]
WORD = re.compile(r"[^\W\d_]+")
ALONE = "àáèéêìíòóôåöÀÁÈÉÊÌÍÒÓÔÅÖªº"  # letters of Latin beyond ASCII that are words
SIGN = re.compile(
    "[\xa0-\xa3\xa5\xa7\xa9\xab\xad\xae\xb0-\xb3\xb5-\xb7\xb9\xbb-\xbf\xd7\u2013\u2014\u2018-\u201e\u2020-\u2026\u2039"
    "\u203a\u20ac\u2122\u3000-\u3002\u3008-\u3011\u3014\u3015\u301c\u30fb\uff00-\uff60]"
)
IN_WORDS = "-\xb7\u2013\u2014\u2018\u2019\u2026"  # signs that stand between letters
QUOTES, LIKELY = (
    "\xab\xbb\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u2026",
    0.2,
)  # signs that speak for a reading, and how much each
WORSE, WORST, SHOWN = 0.1, 0.5, 4  # by how much a reading may be odder than the best, how odd, and how many there are


def readings(data: bytes) -> list[tuple[str, str]]:
    """Return the encodings that `data` can be in, by iconv's name, and how it reads in each; the likeliest first.

    `data` may end within a character.
    """
    found: dict[str, tuple[float, str]] = {}
    for name, codec, letters, usual in ENCODINGS:
        try:
            text = codecs.getincrementaldecoder(codec)().decode(data)
        except UnicodeDecodeError:
            continue
        if text not in found:
            found[text] = (_oddity(text, codec, letters, usual), name)
    ranked = sorted((odd, i, name, text) for i, (text, (odd, name)) in enumerate(found.items()))
    return [(name, text) for odd, _, name, text in ranked if odd <= min(WORST, ranked[0][0] + WORSE)][:SHOWN]


def excerpts(texts: list[str]) -> list[str]:
    """Return the first place of each text where not all read the same; of a single text, the first beyond ASCII."""
    if not texts:
        return []
    others = texts[1:] or [texts[0].encode("ascii", "replace").decode()]
    columns = enumerate(zip(texts[0], *others, strict=False))
    at = next((i for i, column in columns if len({*column}) > 1), 0)
    return [text[max(0, at - 15) : at + 15] for text in texts]


def _oddity(text: str, codec: str, letters: str, usual: range | None) -> float:
    """Return the share of the characters beyond ASCII that do not belong where they stand, less a part of the quotes.

    In a text that is read in a wrong encoding, words mix scripts or cases, letters that are rare are many, and signs
    stand inside words.
    """
    beyond, odd = 0, 0.0
    own = re.compile(f"[{letters}]+")
    for word in WORD.findall(text):
        foreign = [c for c in word if c > "\x7f"]
        if not foreign:
            continue
        fits = own.fullmatch(word) and word in (word.lower(), word.upper(), word.capitalize())
        if letters is LATIN:
            fits = fits and len(foreign) <= max(1, 0.7 * len(word)) and (len(word) > 1 or word in ALONE)
        if usual:
            fits = fits and all(c.encode(codec)[0] in usual for c in foreign)
        beyond += len(foreign)
        odd += 0 if fits else len(foreign)
    for sign in re.finditer(r"[^\0-\x7f]", WORD.sub(lambda word: "x" * len(word[0]), text)):
        c, around = sign[0], text[max(0, sign.start() - 1)] + text[sign.end() : sign.end() + 1]
        inside = not usual and len(around) == 2 and around.isalpha() and c not in IN_WORDS
        beyond += 1
        if (c == "\xa0" and len(around.strip()) < 2) or (inside and c != "\xa0") or not SIGN.match(c):
            odd += 1
        elif c in QUOTES:
            odd -= LIKELY
    return odd / beyond if beyond else 1.0

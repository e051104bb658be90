"""Guess the encoding of a text that is not UTF-8."""

from __future__ import annotations

import codecs
import re

LATIN, CYRILLIC, GREEK = "A-Za-z\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\u024f", "\u0400-\u04ff", "\u0370-\u03ff"
KANA, HAN, HANGUL = "\u3041-\u30ff", "\u4e00-\u9fff", "\uac00-\ud7a3"
# The name in iconv, the name in Python, the letters beyond ASCII and, for encodings of two bytes, the range of the
# first byte of common characters. If two encodings fit equally well, the first in the list is preferred.
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
ALONE = "àáèéêìíòóôåöÀÁÈÉÊÌÍÒÓÔÅÖªº"  # Latin letters beyond ASCII that are words by themselves
SIGN = re.compile(
    "[\xa0-\xa3\xa5\xa7\xa9\xab\xad\xae\xb0-\xb3\xb5-\xb7\xb9\xbb-\xbf\xd7\u2013\u2014\u2018-\u201e\u2020-\u2026\u2039"
    "\u203a\u20ac\u2122\u3000-\u3002\u3008-\u3011\u3014\u3015\u301c\u30fb\uff00-\uff60]"
)
IN_WORDS = "-\xb7\u2013\u2014\u2018\u2019\u2026"  # signs that may occur between letters
# Signs that make a decoding more likely, and by how much each reduces its oddity.
QUOTES, LIKELY = "\xab\xbb\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u2026", 0.2
MAX_GAP = 0.1  # a decoding may be this much odder than the best one
MAX_ODDITY = 0.5  # no decoding may be odder than this
MAX_READINGS = 4  # at most this many are returned


def readings(data: bytes) -> list[tuple[str, str]]:
    """Return the plausible encodings of `data`, the most likely first, each with the decoded text.

    Encodings have iconv's names. `data` may end in the middle of a character.
    """
    found: dict[str, tuple[float, str]] = {}
    for name, codec, letters, common in ENCODINGS:
        try:
            text = codecs.getincrementaldecoder(codec)().decode(data)
        except UnicodeDecodeError:
            continue
        if text not in found:
            found[text] = (_oddity(text, codec, letters, common), name)
    ranked = sorted((oddity, i, name, text) for i, (text, (oddity, name)) in enumerate(found.items()))
    limit = min(MAX_ODDITY, ranked[0][0] + MAX_GAP) if ranked else 0.0
    return [(name, text) for oddity, _, name, text in ranked if oddity <= limit][:MAX_READINGS]


def excerpts(texts: list[str]) -> list[str]:
    """Return an excerpt of each text around the first place where the texts differ.

    For a single text it is the first place beyond ASCII.
    """
    if not texts:
        return []
    others = texts[1:] or [texts[0].encode("ascii", "replace").decode()]
    columns = enumerate(zip(texts[0], *others, strict=False))
    at = next((i for i, column in columns if len({*column}) > 1), 0)
    return [text[max(0, at - 15) : at + 15] for text in texts]


def _oddity(text: str, codec: str, letters: str, common: range | None) -> float:
    """Return how odd a decoded text looks: the share of its characters beyond ASCII that are out of place.

    Each quotation mark reduces the result. In a text that is decoded with the wrong encoding, words mix scripts or
    cases, rare letters are frequent, and signs occur inside words.
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
        if common:
            fits = fits and all(c.encode(codec)[0] in common for c in foreign)
        beyond += len(foreign)
        odd += 0 if fits else len(foreign)
    for sign in re.finditer(r"[^\0-\x7f]", WORD.sub(lambda word: "x" * len(word[0]), text)):
        c, around = sign[0], text[max(0, sign.start() - 1)] + text[sign.end() : sign.end() + 1]
        inside = not common and len(around) == 2 and around.isalpha() and c not in IN_WORDS
        beyond += 1
        if (c == "\xa0" and len(around.strip()) < 2) or (inside and c != "\xa0") or not SIGN.match(c):
            odd += 1
        elif c in QUOTES:
            odd -= LIKELY
    return odd / beyond if beyond else 1.0

"""Synthetic corpora: an independent parser checks their grammar; counting, enumeration and theory check `log_prob`."""

import hashlib
import math
import random
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise, permutations, product

import numpy as np
import pytest

from lm.data.corpus import AdditionConfig, RepeatsConfig, Sequence2Config, SequenceConfig, TenActionsConfig, WordsConfig

CORPORA = {
    "words": WordsConfig(),
    "addition": AdditionConfig(),
    "ten_actions": TenActionsConfig(),
    "sequence": SequenceConfig(),
    "sequence2": Sequence2Config(),
    "noisy": Sequence2Config(noise=0.02),
    "repeats": RepeatsConfig(),
}
A_MILLION = {
    "words": 143_000,
    "addition": 70_000,
    "ten_actions": 87_000,
    "sequence": 333_360,
    "repeats": 59_000,
}  # lines
RANDOM = ["words", "addition", "ten_actions", "repeats"]
ALPHABETS = {
    "words": "aeioubcdfghjk;\n",
    "addition": "0123456789 +=;\n",
    "ten_actions": "abcdefghijklz0123456789;\n",
    "sequence": "abcdefgh@#$%^",
    "sequence2": "abcdefghijklmnopqrstuvwxyz0123;\n",
    "noisy": "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ;\n",
    "repeats": "abcdefghijklmnopqrstuvwxyz\n",
}
every_corpus = pytest.mark.parametrize("name", CORPORA)


@cache
def text(name: str) -> str:
    """Return about a million characters; for the sequences, whole periods."""
    generated = replace(CORPORA[name], lines=A_MILLION.get(name, 27 * 4620), seed=3).generate()
    return generated.removesuffix("\n\n") + "\n" if name == "words" else generated


def windows(name: str, length: int, count: int) -> list[str]:
    draw, stream = random.Random(f"{name} {length}"), text(name)
    starts = [draw.randrange(100, len(stream) - length) for _ in range(count)]
    return [stream[i : i + length] for i in starts]


def uniform(values, options) -> None:
    counts, expected = Counter(values), len(values) / len(options)
    assert counts.keys() == set(options)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values()), counts


# The grammars.


def test_words_follow_the_grammar():
    lines = WordsConfig(lines=20_000, seed=5).generate().split("\n")
    assert lines[-2:] == ["", ""] and len(lines) == 20_002
    words = [line.removesuffix(";") for line in lines[:-2]]
    initials = [word[0] for word in words]
    for i, (line, word) in enumerate(zip(lines, words, strict=False)):
        assert re.fullmatch("([bcdfghjk][aeiou]){2,3};", line)
        assert len(set(word)) == len(word)
        assert initials[i] not in initials[max(0, i - 3) : i]
    uniform([len(word) for word in words], [4, 6])
    for place in range(6):
        uniform([word[place] for word in words if len(word) > place], "aeiou" if place % 2 else "bcdfghjk")


def test_sums_are_correct():
    lines = text("addition").splitlines()
    sums = [re.fullmatch(r"(\d+) \+ (\d+) = (\d+);", line).groups() for line in lines]
    assert len(sums) == 70_000
    assert all(int(a) + int(b) == int(c) for a, b, c in sums)
    assert all(number == str(int(number)) for numbers in sums for number in numbers)
    uniform([int(a) for a, _, _ in sums], range(101))
    uniform([int(b) for _, b, _ in sums], range(101))
    assert len({(a, b) for a, b, _ in sums}) > 10_150  # of 10201, when each comes up seven times on average


def shift(letters: str) -> str:
    return "".join({"a": "g", "b": "h", "c": "i", "d": "j", "e": "k", "f": "l"}[c] for c in letters)


RESULTS = [
    lambda data, previous: "",
    lambda data, previous: data[:3],
    lambda data, previous: data[-3:],
    lambda data, previous: shift(data[:3]),
    lambda data, previous: shift(data[-3:]),
    lambda data, previous: previous[:3],
    lambda data, previous: previous[-3:],
    lambda data, previous: shift(previous[:3]),
    lambda data, previous: shift(previous[-3:]),
    lambda data, previous: "z",
]


@pytest.mark.slow
def test_each_of_the_ten_actions_has_its_result():
    lines = [re.fullmatch("([a-f]{4,8})([0-9])([a-z]*);", line).groups() for line in text("ten_actions").splitlines()]
    assert 87_000 - 20 < len(lines) <= 87_000
    assert lines[0][1] not in "5678"
    for (previous, _, _), (data, action, result) in pairwise([("", "", ""), *lines]):
        assert result == RESULTS[int(action)](data, previous)
    uniform([action for _, action, _ in lines], "0123456789")
    uniform([len(data) for data, _, _ in lines], range(4, 9))
    uniform("".join(data for data, _, _ in lines), "abcdef")


def test_lines_repeat_their_letters_once():
    lines = text("repeats").splitlines()
    assert len(lines) == 59_000
    for line in lines:
        half = line[: len(line) // 2]
        assert line == half + half and len(set(half)) == len(half)
    uniform([len(line) // 2 for line in lines], range(4, 13))
    uniform([line[0] for line in lines], ALPHABETS["repeats"][:-1])
    uniform([line[3] for line in lines], ALPHABETS["repeats"][:-1])


def test_the_first_line_does_not_look_back():
    texts = [TenActionsConfig(lines=1, seed=seed).generate() for seed in range(1000)]
    assert not any(re.fullmatch("[a-f]+[5-8].*\n", line) for line in texts)
    assert abs(texts.count("") - 400) < 5 * (1000 * 0.4 * 0.6) ** 0.5


def test_sequences_are_interleaved_cycles():
    steps = [("abcdefgh"[i % 8], "@#$%^"[i % 5]) for i in range(2000)]
    assert SequenceConfig().generate() == "".join(letter + mark + mark for letter, mark in steps)
    lines = Sequence2Config(lines=10_000).generate().splitlines(keepends=True)
    assert len(lines) == 10_000
    for i, line in enumerate(lines):
        d = "mnopqrs"[i % 7]
        assert line == "abc"[i % 3] + "defg"[i % 4] + "hijkl"[i % 5] + d + d + "tuvwxyz0123"[i % 11] + ";\n"


def test_noise_replaces_characters_evenly():
    clean, noisy = text("sequence2"), text("noisy")
    assert len(clean) == len(noisy)
    changed = [(a, b) for a, b in zip(clean, noisy, strict=True) if a != b]
    share = 0.02 * 63 / 64
    assert abs(len(changed) / len(clean) - share) < 5 * (share / len(clean)) ** 0.5
    uniform([b for _, b in changed if b not in ALPHABETS["sequence2"]], set(ALPHABETS["noisy"]) - set(clean))
    assert {b for _, b in changed} == set(ALPHABETS["noisy"])


# The bytes.

GOLDEN = {
    "words": "4de4dec4d62ed1aef398580888a6c1d563c66d831fe50d04b353054e1743bd41",
    "addition": "402f9ca19c915341cdf28044ac51304a67db805dae040961497d4eeff66aaacb",
    "ten_actions": "b101de024d6d1e93595f82b28ee8575927993d87e4aaaab1117a98242a382bc2",
    "sequence": "9d26ed27e21589e9df35c321a3dd9e12653defc1344e9c2f28e400389f382037",
    "sequence2": "3f9265f23dc011a48175010a70363b50219e1229bd6c264ab73a331971787e44",
    "noisy": "f1ea1bdc92ecd95ab1a6493e5fe190c91b1fe75b2f1e3a16c32a8227a8205fc0",
    "repeats": "1766f515d3065b10c83d16de9f39be99393ceebb629a042bfd4e0feb51f0445e",
}


@every_corpus
def test_texts_are_the_same_bytes_everywhere(name):
    config = CORPORA[name]
    assert hashlib.sha256(config.generate().encode()).hexdigest() == GOLDEN[name]
    first, second = (replace(config, lines=100, seed=seed).generate() for seed in (1, 2))
    assert (first == second) == (name in ("sequence", "sequence2"))


@every_corpus
def test_a_longer_text_begins_with_the_shorter_one(name):
    short, long = (replace(CORPORA[name], lines=lines).generate() for lines in (100, 300))
    assert long.startswith(short.removesuffix("\n")) and 2 < len(long) / len(short) < 4


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="corpus.lines=0 must be at least 1"):
        WordsConfig(lines=0)
    with pytest.raises(ValueError, match="corpus.noise=1.5 must be at least 0 and below 1"):
        Sequence2Config(noise=1.5)


def test_a_text_is_one_stream():
    assert WordsConfig(lines=3).streams(None) == {"train": [WordsConfig(lines=3).generate()]}


# log_prob. It is a probability distribution: the probabilities of all continuations of a window, in both directions, add
# up to that of the window. It follows the grammar: after enough text, a line has the probability given by the grammar.


@pytest.mark.slow_after(1)
@every_corpus
def test_the_probabilities_of_all_continuations_add_up(name):
    log_prob, alphabet = CORPORA[name].log_prob, ALPHABETS[name]
    assert sum(math.exp(log_prob(c)) for c in alphabet) == pytest.approx(1, rel=1e-9)
    for length in [*range(1, 41), 300] if name in RANDOM else [1, 2, 3, 5, 8, 13, 40, 300]:
        for window in windows(name, length, 1):
            p = log_prob(window)
            assert sum(math.exp(log_prob(window + c) - p) for c in alphabet) == pytest.approx(1, rel=1e-9), window
            assert sum(math.exp(log_prob(c + window) - p) for c in alphabet) == pytest.approx(1, rel=1e-9), window


@pytest.mark.parametrize("name", RANDOM)
def test_after_enough_text_a_line_has_the_probability_of_the_grammar(name):
    chances = {
        "words": lambda line: -math.log(5 * 5 * 7 * 4 * 2 * (1 if len(line) == 6 else 6 * 3)),
        "addition": lambda line: -2 * math.log(101),
        "repeats": lambda line: -math.log(9 * math.perm(26, len(line) // 2)),
        "ten_actions": lambda line: -math.log(5 * 10) - len(re.match("[a-f]*", line)[0]) * math.log(6),
    }
    log_prob = CORPORA[name].log_prob
    for window in windows(name, 200, 100):
        *before, line, _ = window.splitlines(keepends=True)
        gain = log_prob("".join([*before, line])) - log_prob("".join(before))
        assert gain == pytest.approx(chances[name](line), rel=1e-9), window


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("name", [*RANDOM, "noisy"])
def test_the_frequency_of_windows_agrees_with_log_prob(name):
    stream = np.frombuffer(text(name).encode(), dtype=np.uint8)
    short = {w for length in range(1, 9) for w in windows(name, length, 40)} | set(ALPHABETS[name])
    tested = 0
    for window in short:
        p = math.exp(CORPORA[name].log_prob(window))
        if p * len(stream) < 200:
            continue
        found = np.ones(len(stream) - 10, dtype=bool)
        for i, c in enumerate(window.encode()):
            found &= stream[i : i + len(found)] == c
        parts = found[: len(found) // 100 * 100].reshape(100, -1).mean(axis=1)  # nearly independent of each other
        assert abs(parts.mean() - p) < 5 * parts.std() / 10, window
        tested += 1
    assert tested > 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sequence", "sequence2"])
def test_the_probability_of_sequences_is_the_share_of_matching_phases(name):
    period = text(name)[: 120 if name == "sequence" else 36960]
    assert text(name)[len(period) :].startswith(period)
    for window in [w for length in (1, 2, 3, 5, 17, 250) for w in windows(name, length, 3)]:
        count = sum((period + period).startswith(window[:100], i) for i in range(len(period)))
        assert CORPORA[name].log_prob(window) == pytest.approx(math.log(count / len(period)))


@pytest.mark.slow
def test_noise_is_averaged_over_all_phases():
    period = text("sequence2")[:36960]
    keep, swap = 1 - 0.02 * 63 / 64, 0.02 / 64
    for window in ["a", "Q", "4;", "adhmm", "adhmQ", "Qdhmmt", "adhmmt;\nb", *windows("noisy", 7, 3)]:
        ends = [(period + period)[i : i + len(window)] for i in range(len(period))]
        p = sum(math.prod(keep if a == b else swap for a, b in zip(window, end, strict=True)) for end in ends)
        assert CORPORA["noisy"].log_prob(window) == pytest.approx(math.log(p / len(period)))


# Enumeration of everything that may precede a window.


@cache
def following(word: str, history: str) -> dict[str, float]:
    """Return the probability of each next character after `word`, in a line after lines with these initials."""
    if word == "":
        free = set("bcdfghjk") - set(history)
    elif word[-1] == ";":
        return {"\n": 1.0}
    else:
        free = set("aeiou" if len(word) % 2 else "bcdfghjk") - set(word)
    if len(word) == 6:
        return {";": 1.0}
    continues = 0.5 if len(word) == 4 else 1.0
    return {c: continues / len(free) for c in free} | ({";": 0.5} if len(word) == 4 else {})


def reading(window: str, word: str, history: str) -> float:
    p = 1.0
    for c in window:
        p *= following(word, history if word == "" else "").get(c, 0.0)
        if p == 0:
            return 0.0
        if word == "":
            history = (history + c)[-3:]
        word = "" if c == "\n" else word + c
    return p


@cache
def words_so_far() -> dict[str, float]:
    """Return all beginnings of a line with the probability that a line begins with them."""
    found, edge = {}, {"": 1.0}
    while edge:
        found |= edge
        edge = {w + c: p * q for w, p in edge.items() for c, q in following(w, "").items() if c != "\n"}
    return found


def enumerate_words(window: str) -> float:
    cut = window.find("\n") + 1 or len(window)
    chances = dict.fromkeys("bcdfghjk", 0.0)  # of the visible part of the first line, keyed by the initial of that line
    for word, p in words_so_far().items():
        if word:
            chances[word[0]] += p * reading(window[:cut], word, "")
    histories = ["".join(h) for h in permutations("bcdfghjk", 3)]
    total = sum(reading(window, "", h) for h in histories) / len(histories)
    for initial, p in chances.items():
        possible = [h for h in histories if h[-1] == initial]
        total += p * sum(reading(window[cut:], "", h) for h in possible) / len(possible)
    return total / 7  # characters in a line, on average


@pytest.mark.slow
def test_log_prob_of_words_agrees_with_enumeration():
    for window in [w for length in (1, 2, 3, 5, 8, 12, 20, 30, 45) for w in windows("words", length, 2)]:
        assert math.exp(WordsConfig().log_prob(window)) == pytest.approx(enumerate_words(window), rel=1e-9), window


@cache
def letters(n: int) -> np.ndarray:
    """Return all combinations of n letters, (n, 6**n)."""
    return np.array(list(product(range(6), repeat=n))).T


def enumerate_actions(window: str) -> float:
    """Return the probability of a window of real text, enumerating only the letters that are not visible."""
    first, *lines = window.splitlines(keepends=True)
    rest_probability, looks_back = 1.0, None
    for line in lines:
        data, action = re.match("([a-f]*)([0-9]?)", line).groups()
        rest_probability *= 6.0 ** -len(data) * (1 / 50 if action else sum(k >= len(data) for k in range(4, 9)) / 5)
    if lines:
        looks_back = re.match("[a-f]+([5-8])([a-l]*)", lines[0])
    total = 0.0
    for k, action in product(range(4, 9), range(10)):
        kind = {0: "", 9: "z"}.get(action, "SSS" if action in (3, 4, 7, 8) else "LLL")
        line = "L" * k + str(action) + kind + ";\n"
        places = {1: range(3), 0: range(k - 3, k)}  # which letters an action takes, if it is odd or even
        for offset in range(len(line)):
            rest = line[offset:]
            if len(first) > len(rest) or any(
                c not in {"L": "abcdef", "S": "ghijkl"}.get(mark, mark) for c, mark in zip(first, rest, strict=False)
            ):
                continue
            seen = {i: "abcdef".index(c) for i, c in enumerate(first, offset) if i < k}
            result = [
                (i - k - 1, "abcdefghijkl".index(c) % 6)
                for i, c in enumerate(first, offset)
                if line[i] in "LS" and i > k
            ]
            p = 6.0 ** -(len(seen) + len(result) * (action >= 5))
            claims = [(places[action % 2][j], letter) for j, letter in result if action <= 4]
            if looks_back:
                source = places[int(looks_back[1]) % 2]
                claims += [(source[j], "abcdefghijkl".index(c) % 6) for j, c in enumerate(looks_back[2])]
            hidden = sorted({i for i, _ in claims} - seen.keys())
            true = np.ones(6 ** len(hidden), dtype=bool)
            for i, letter in claims:
                true &= (letters(len(hidden))[hidden.index(i)] if i in hidden else seen[i]) == letter
            total += p * true.mean()
    return total / 575 * rest_probability  # characters in fifty lines


def test_log_prob_of_ten_actions_agrees_with_enumeration():
    for window in [w for length in (1, 2, 3, 5, 8, 12, 16, 20, 24, 30, 60) for w in windows("ten_actions", length, 20)]:
        p = enumerate_actions(window)
        assert math.exp(TenActionsConfig().log_prob(window)) == pytest.approx(p, rel=1e-9), window


@pytest.mark.parametrize(
    ("name", "impossible"),
    [
        (
            "words",
            ["é", "B", "V", " ", "aa", "bc", "bab", "a;a", ";;", "\n;", "\n\n", "\nba;", "bacedifo", "\nbacedi\n"],
        ),
        ("words", ["baceb", ";\nbace;\nbace;", "\nbace;\nbado;\n", "\nb\nc", "\nbace;\ncado;\ndibe;\nba", "a;\r\nb"]),
        (
            "addition",
            ["\n1 + 1 = 3", "= 201", "\n01", "\n101 ", "1  ", "+ 5 = 4;", "\n3 + 4 = 7\n", ";\n\n", "\r", "é"],
        ),
        (
            "ten_actions",
            ["ag", "gz", "zz", "abcdefabc", "\nabc0", "\nabcd1abd", "\nabcd2abc", "9;", "\n0", ";\n;", "z\n"],
        ),
        (
            "ten_actions",
            ["a4hij", "a2abc", "ab4ghk", "\nabcd0;\nfeda5abd", "\nabcdefa0;\naaaa8jkk", "\nabcd٣", "\nabcd²"],
        ),
        ("ten_actions", ["a1fab;\nabcd6bcd;", "b3ghi;\nabcd5abd", "0;\nabcd0;\nabcd6bcc"]),
        ("sequence", ["ab", "@@@", "a@a", "a@@c", "i", "%%a%%"]),
        ("sequence2", ["ad\n", "aa", "mn", "mmm", ";a", "é", "Q"]),
        ("noisy", ["é", "-", " ", "adhmm t"]),
        (
            "repeats",
            [
                "é",
                "A",
                "\n\n",
                "\nab\n",
                "\nabcd\n",
                "\nabca",
                "\nabcdabce",
                "\nabcdabcd\nabcdabcdab",
                "abcdefghijklmn",
            ],
        ),
    ],
)
def test_impossible_windows_have_probability_zero(name, impossible):
    assert [w for w in impossible if CORPORA[name].log_prob(w) != -math.inf] == []


# The lowest possible loss.

LINE = np.mean([len(f"{a} + {b} = {a + b};\n") for a in range(101) for b in range(101)])
SAME = 1 - 0.02 * 63 / 64
RATES = {
    "words": (2 * math.log(5) + math.log(7) + math.log(4) + math.log(2) + (math.log(6) + math.log(3)) / 2) / 7,
    "addition": 2 * math.log(101) / LINE,
    # Five lengths, six letters on average, ten actions; six letters, a digit, 2.5 of a result, a semicolon, a newline.
    "ten_actions": (math.log(5) + 6 * math.log(6) + math.log(10)) / (6 + 1 + (8 * 3 + 1) / 10 + 2),
    "sequence": 0.0,
    "sequence2": 0.0,
    # Nine lengths; 17 characters on average.
    "repeats": (math.log(9) + sum(math.log(math.perm(26, n)) for n in range(4, 13)) / 9) / 17,
    "noisy": -SAME * math.log(SAME) - 63 * (0.02 / 64) * math.log(0.02 / 64),
}


@pytest.mark.slow_after(2)
@every_corpus
def test_the_entropy_agrees_with_theory(name):
    log_prob, long = CORPORA[name].log_prob, 4096 if name in RANDOM else 1024
    losses = [(log_prob(w[:256]) - log_prob(w)) / (long - 256) for w in windows(name, long, 60)]
    error = np.std(losses) / len(losses) ** 0.5
    assert error < 0.006
    assert abs(np.mean(losses) - RATES[name]) < 5 * error + 1e-9


@pytest.mark.slow_after(2)
@pytest.mark.parametrize(
    ("name", "T", "floor"),
    [
        ("words", 64, 1.264),
        ("words", 128, 1.253),
        ("addition", 64, 0.712),
        ("addition", 128, 0.678),
        ("ten_actions", 64, 1.349),
        ("ten_actions", 128, 1.313),
    ],
)
def test_the_loss_of_a_window_is_slightly_above_the_entropy(name, T, floor):
    log_prob = CORPORA[name].log_prob
    first = {c: log_prob(c) for c in ALPHABETS[name]}  # the first character is given
    losses = [(first[w[0]] - log_prob(w)) / T for w in windows(name, T + 1, 1500)]
    assert np.std(losses) / len(losses) ** 0.5 < 0.002
    assert np.mean(losses) == pytest.approx(floor, abs=0.01)

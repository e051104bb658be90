import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, run_script

from lm.data.tokenizer.plain import Bytes, Chars
from lm.generate import GenerationRequest, Piece, Sampling, complete, decode
from lm.generate.sampling import uniforms
from lm.generate.session import Session
from lm.model import GPT, GPTConfig
from lm.run.checkpoint import load
from lm.run.lock import acquire

LETTERS = "abcdefghijklmnopqrst"


def small(vocab_size=20, block_size=8, position="rope"):
    torch.manual_seed(0)
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=block_size, position=position, tie_embeddings=False)
    model = GPT(config, vocab_size).eval()
    with torch.no_grad():
        model.head.weight.normal_(0, 0.5)  # so that the probabilities differ
    return model


@pytest.fixture
def model():
    return small()


def ids_of(model, prompts, n, sampling, seed=0, samples=None):
    """Return the new ids of each prompt, by calling `decode` directly."""
    prompts = [torch.tensor(p) for p in prompts]
    drawn = uniforms(seed, samples or [0] * len(prompts), n)
    columns = [ids.tolist() for ids, _ in decode(model, prompts, sampling, drawn)]
    shortest = min(map(len, prompts))
    rows = zip(*columns, strict=True)
    return [list(row)[len(p) - shortest :][:n] for row, p in zip(rows, prompts, strict=True)]


# ---- one row


def test_greedy_sampling_takes_the_most_probable_token(model):
    text = [3, 1]
    for token in ids_of(model, [[3, 1]], 4, Sampling(temperature=0))[0]:
        assert token == model(torch.tensor([text]))[0, -1].argmax()
        text.append(token)


def test_the_prompt_may_exceed_the_context(model):
    prompt = torch.randint(20, (30,)).tolist()
    assert ids_of(model, [prompt], 1, Sampling(0))[0][0] == model(torch.tensor([prompt[-8:]]))[0, -1].argmax()


def test_beyond_the_context_at_least_three_quarters_of_it_are_seen(model):
    prompt = torch.randint(20, (8,)).tolist()
    new = ids_of(model, [prompt], 20, Sampling(0))[0]
    text = prompt + new
    for t in range(9, 28):
        expected = {int(model(torch.tensor([text[t - n : t]]))[0, -1].argmax()) for n in (7, 8)}
        assert text[t] in expected


def test_the_seed_determines_the_text(model):
    assert ids_of(model, [[0]], 20, Sampling(), 1) == ids_of(model, [[0]], 20, Sampling(), 1)
    assert ids_of(model, [[0]], 20, Sampling(), 1) != ids_of(model, [[0]], 20, Sampling(), 2)
    assert ids_of(model, [[0]], 20, Sampling(), 1)[0][:5] == ids_of(model, [[0]], 5, Sampling(), 1)[0]


# ---- batches


@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal", "none"])
@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(1.0, top_k=15, repetition_penalty=1.3)], ids=str)
def test_a_batch_gives_the_same_tokens_as_single_prompts(position, sampling):
    model = small(position=position)
    prompts = [[1], [5, 4, 3, 2, 1, 0, 7], [2, 2, 2], list(range(19))]  # the last is longer than the context
    together = ids_of(model, prompts, 15, sampling)
    assert together == [ids_of(model, [p], 15, sampling)[0] for p in prompts]


def test_samples_of_one_prompt_differ_and_are_independent_of_each_other(model):
    three = ids_of(model, [[1, 2]] * 3, 12, Sampling(), samples=[0, 1, 2])
    assert len({tuple(row) for row in three}) == 3
    assert ids_of(model, [[1, 2]], 12, Sampling(), samples=[2])[0] == three[2]


# ---- sampling


def draw_shares(logits, n=20_000, seen=None, **settings):
    rows = torch.tensor(logits).expand(n, -1)
    u = torch.from_numpy(np.random.default_rng(0).random(n))
    seen = None if seen is None else torch.tensor(seen).expand(n, -1)
    return torch.bincount(Sampling(**settings).choose(rows, u, seen), minlength=len(logits)) / n


LOGITS = [2.0, 1.0, 0.0, -1.0]  # probabilities 0.644 0.237 0.087 0.032


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_scales_the_logits(temperature):
    expected = (torch.tensor(LOGITS) / temperature).softmax(0)
    torch.testing.assert_close(draw_shares(LOGITS, temperature=temperature), expected, atol=0.02, rtol=0)


def test_top_k_keeps_k_tokens_and_renormalizes():
    expected = torch.cat((torch.tensor(LOGITS[:2]).softmax(0), torch.zeros(2)))
    torch.testing.assert_close(draw_shares(LOGITS, top_k=2), expected, atol=0.02, rtol=0)
    assert draw_shares(LOGITS, top_k=99).min() > 0


def drawn_tokens(**settings):
    return (draw_shares(LOGITS, **settings) > 0).tolist()


def test_top_p_keeps_the_fewest_tokens_that_hold_p():
    assert drawn_tokens(top_p=0.6) == [True, False, False, False]
    assert drawn_tokens(top_p=0.65) == [True, True, False, False]
    assert drawn_tokens(top_p=0.9) == [True, True, True, False]
    assert drawn_tokens(top_p=1.0) == [True] * 4


def test_min_p_is_a_share_of_the_highest_probability():
    assert drawn_tokens(min_p=0.3) == [True, True, False, False]  # 0.237 / 0.644 = 0.368, 0.087 / 0.644 = 0.135
    assert drawn_tokens(min_p=0.13) == [True, True, True, False]
    assert drawn_tokens(min_p=1.0) == [True, False, False, False] and drawn_tokens(min_p=0.0) == [True] * 4


def test_filters_are_applied_one_after_another():
    assert drawn_tokens(top_k=3, top_p=0.5) == [True, False, False, False]
    assert drawn_tokens(top_k=1, top_p=0.99) == [True, False, False, False]
    # after top_k=3 the probabilities are 0.665 0.245 0.090, so 0.9 needs two tokens; without it, three
    assert drawn_tokens(top_k=3, top_p=0.9) == [True, True, False, False]
    assert drawn_tokens(temperature=0.25, min_p=0.1) == [True, False, False, False]  # the ratio 0.37 becomes e^-4


def test_the_repetition_penalty_divides_positive_logits_and_multiplies_negative_ones():
    expected = torch.tensor([1.0, 1.0, 0.0, -2.0]).softmax(0)
    found = draw_shares(LOGITS, repetition_penalty=2.0, seen=[True, False, False, True])
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_filters_agree_with_hugging_face():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    logits, ids = 3 * torch.randn(5, 50), torch.randint(50, (5, 7))
    p = transformers.generation.logits_process
    chain = [
        p.RepetitionPenaltyLogitsProcessor(1.2), p.TemperatureLogitsWarper(0.7), p.TopKLogitsWarper(20),
        p.TopPLogitsWarper(0.9), p.MinPLogitsWarper(0.05),
    ]  # fmt: skip
    theirs = logits.clone()
    for step in chain:
        theirs = step(ids, theirs)
    seen = torch.zeros(5, 50, dtype=torch.bool).scatter(1, ids, True)
    ours = Sampling(0.7, 20, 0.9, 0.05, 1.2).filter_logits(logits, seen)
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1))
    assert 1 < (ours.isfinite()).sum(1).float().mean() < 20


def test_tokens_of_probability_zero_are_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, -1)
    assert Sampling().choose(logits, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 3, 3]


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": 0}, {"top_p": 0.0},
     {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 1.1}, {"repetition_penalty": 0.0}],
    ids=str,
)  # fmt: skip
def test_an_invalid_sampling_setting_is_refused_by_name(settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}="):
        Sampling(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"max_new_tokens": 0}, {"num_samples": 0}, {"seed": -1}, {"seed": 2**63}, {"alternatives": -1}],
    ids=str,
)
def test_an_invalid_request_is_refused_by_name(settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}="):
        GenerationRequest(**settings)


# ---- text


class Parrot(GPT):
    """A model that always writes the text `ids`, whose first token follows the first token of the prompt."""

    def __init__(self, ids, vocab_size):
        config = GPTConfig(n_layer=1, n_head=1, n_embd=2, block_size=512)
        super().__init__(config, vocab_size)
        self.ids = ids
        self.eval()

    def features(self, ids, documents=None, cache=None):
        start = cache.length if cache else 0
        if cache is not None:
            cache.length = start + ids.size(1)
        at = torch.arange(start, start + ids.size(1))
        return at[None, :, None].expand(len(ids), -1, 1)

    def logits(self, x):
        return torch.nn.functional.one_hot(
            torch.tensor(self.ids)[x[..., 0].clamp(max=len(self.ids) - 1)], self.vocab_size
        ).float()


GREEDY = Sampling(0)


def write(text, tokenizer, **settings):
    """Return the completion of a model that always writes `text`, and the emitted pieces of text."""
    parrot = Parrot(tokenizer.encode(text).tolist(), tokenizer.vocab_size)
    emitted = []
    request = GenerationRequest(**{"max_new_tokens": len(parrot.ids), "sampling": GREEDY} | settings)
    [completion] = complete(
        parrot,
        tokenizer,
        [tokenizer.decode([99 % tokenizer.vocab_size])],
        request,
        lambda row, piece: emitted.append(piece),
    )
    return completion, emitted


def test_a_stop_string_ends_the_text_before_it():
    chars = Chars(LETTERS, [])
    completion, emitted = write("abcdefgh", chars, stop=("ef", "fg"))
    assert completion.text == "".join(emitted) == "abcd" and completion.ended == "stop"
    completion, emitted = write("abceabcdx".replace("x", "e"), chars, stop=("abcde",))
    assert completion.text == "".join(emitted) == "abce"
    assert "abc" not in emitted and "a" not in emitted[:1]  # a possible beginning of a stop string is held back
    completion, emitted = write("abcab", chars, stop=("abd",))
    assert completion.text == "".join(emitted) == "abcab" and completion.ended == "length"


def test_characters_of_several_tokens_are_emitted_whole():
    text = "naïve, 漢字 🙂 " * 6
    completion, emitted = write(text, Bytes([]))
    assert completion.text == "".join(emitted) == text
    assert all("\ufffd" not in piece for piece in emitted)


def test_a_character_cut_off_by_the_length_is_emitted_as_a_replacement_character():
    completion, emitted = write("a漢", Bytes([]), max_new_tokens=3)
    assert completion.text == "".join(emitted) == "a\ufffd" and completion.ended == "length"


def test_the_end_of_text_token_ends_the_text_unless_it_is_ignored():
    tokenizer = Chars(LETTERS, ["<|endoftext|>"])
    ids = [*tokenizer.encode("abc").tolist(), tokenizer.end_of_text, *tokenizer.encode("de").tolist()]
    parrot = Parrot(ids, tokenizer.vocab_size)
    [ended] = complete(parrot, tokenizer, ["f"], GenerationRequest(6, GREEDY))
    assert (ended.text, ended.ended, len(ended.ids)) == ("abc", "end_of_text", 3)
    [whole] = complete(parrot, tokenizer, ["f"], GenerationRequest(6, GREEDY, end_of_text=False))
    assert whole.ids == ids and whole.text.endswith("de") and whole.ended == "length"


def test_rows_that_end_early_do_not_change_the_others(model):
    chars = Chars(LETTERS, [])
    unstopped = complete(model, chars, ["abc", "k"], GenerationRequest(20, Sampling(), num_samples=3))
    assert [(c.prompt, c.sample) for c in unstopped] == [(p, n) for p in ("abc", "k") for n in range(3)]
    stop = unstopped[0].text[4:6]
    for before, after in zip(
        unstopped, complete(model, chars, ["abc", "k"], GenerationRequest(20, Sampling(), 3, stop=(stop,))), strict=True
    ):
        assert after.text == re.split(re.escape(stop), before.text)[0]


def test_alternatives_have_the_probabilities_of_the_model(model):
    chars = Chars(LETTERS, [])
    [c] = complete(model, chars, ["abc"], GenerationRequest(3, Sampling(0.3, top_k=2), alternatives=4))
    text = chars.encode("abc").tolist()
    for token, piece in zip(c.ids, c.pieces, strict=True):
        probs = model(torch.tensor([text])).detach()[0, -1].softmax(-1)
        top = probs.topk(4)
        assert (
            isinstance(piece, Piece)
            and piece.id == token
            and piece.prob == pytest.approx(float(probs[token]), rel=1e-4)
        )
        assert [i for i, _ in piece.top] == top.indices.tolist()
        assert [p for _, p in piece.top] == pytest.approx(top.values.tolist(), rel=1e-4)
        text.append(token)


def test_decoding_without_a_cache_gives_the_same_text(model):
    chars = Chars(LETTERS, [])
    texts = [
        [c.text for c in complete(model, chars, ["abc", "k"], GenerationRequest(20, cached=cached))]
        for cached in (True, False)
    ]
    assert texts[0] == texts[1]


def test_prompts_that_cannot_be_continued_are_refused(model):
    chars = Chars(LETTERS, [])
    for prompts in ([], [""], ["a", ""]):
        with pytest.raises(ValueError, match="empty"):
            complete(model, chars, prompts, GenerationRequest())
    with pytest.raises(ValueError, match="'Z'"):
        complete(model, chars, ["aZ"], GenerationRequest())
    with pytest.raises(ValueError, match="stop must not be empty"):
        GenerationRequest(stop=("a", ""))


# ---- a session


def talk(model, *lines, request=None, tokenizer=None):
    """Run a session on these lines, and return its output and the session. An exception among the lines is raised."""
    output, lines = [], iter(lines)

    def read(question):
        line = next(lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    session = Session(
        model, tokenizer or Chars(LETTERS, []), request or GenerationRequest(8, GREEDY), read, output.append
    )
    session.run()
    return "".join(output), session


def test_a_session_continues_each_prompt(model):
    chars = Chars(LETTERS, [])
    [alone] = complete(model, chars, ["abc"], GenerationRequest(8, GREEDY))
    output, session = talk(model, "abc", "/more", "/quit", "never")
    [more] = complete(model, chars, ["abc" + alone.text], GenerationRequest(8, GREEDY))
    assert output.split("\n")[1:] == [alone.text, more.text, ""] and session.text == more.text


def test_settings_are_shown_changed_and_refused(model):
    output, session = talk(
        model, "/set top_k 5", "/set temperature=0.5", "/set stop ab é '\\n'", "/set top-p 2", "/set tempratur 1",
        "/set top_k many", "/set seed", "/set", "/set top_k off", "/hlep",
    )  # fmt: skip
    assert session.request.sampling == Sampling(0.5) and session.request.stop == ("ab", "é", "\n")
    for line in (
        "top_p=2.0 must be above 0 and at most 1", "unknown setting tempratur; did you mean 'temperature'?",
        "top_k=many must be a whole number", "/set seed needs a value; the current value is 1337", "top_k               5",
        "unknown command /hlep; did you mean '/help'?", "stop                'ab' 'é' '\\n'",
    ):  # fmt: skip
        assert line in output


def test_again_uses_the_next_seed(model):
    output, session = talk(model, "abc", "/again", request=GenerationRequest(8, Sampling(), seed=3))
    texts = [
        complete(model, Chars(LETTERS, []), ["abc"], GenerationRequest(8, Sampling(), seed=s))[0].text for s in (3, 4)
    ]
    assert output.split("\n")[1:3] == texts and session.request.seed == 4


def test_an_entry_may_have_several_lines_or_begin_with_two_slashes(model):
    for typed, prompt in {("ab\\", "cd"): "ab\ncd", ('"""', "a", "", "b", '"""'): "a\n\nb", ("//a",): "/a"}.items():
        lines = iter(typed)
        session = Session(
            small(256), Bytes([]), GenerationRequest(1), lambda question, lines=lines: next(lines), lambda text: None
        )
        session.execute(session.read_entry())
        assert session.prompt == prompt


def test_ctrl_c_stops_the_text_and_not_the_session(model, monkeypatch):
    whole = complete(model, Chars(LETTERS, []), ["abc"], GenerationRequest(8, GREEDY))[0].text
    output = []

    def write_text(text):
        output.append(text)
        if "".join(output).endswith(whole[:3]) and "[stopped]" not in "".join(output):
            raise KeyboardInterrupt

    lines = iter(["abc", KeyboardInterrupt(), "/more"])

    def read(question):
        line = next(lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    session = Session(model, Chars(LETTERS, []), GenerationRequest(8, GREEDY), read, write_text)
    session.run()
    assert f"{whole[:3]} [stopped]\n" in "".join(output)
    assert session.prompt == "abc" + whole[:3]  # /more continues where the text was stopped


# ---- the script


def script(*args, stdin=""):
    return run_script("generate", *args, stdin=stdin)


@pytest.mark.slow
def test_the_generate_script(nano, tmp_path):
    run = nano(
        "model.position=learned", "model.mlp=gelu", "trainer.max_steps=100", "trainer.val_every=50"
    )  # GPT-2's shape
    greedy = ("--prompt", "ba", "--max-new-tokens", 40, "--temperature", 0, "--device", "cpu")
    done = script(run, *greedy)
    assert done.returncode == 0 and done.stdout.startswith("ba") and len(done.stdout) == 43
    assert re.fullmatch(r"40 tokens in [\d.]+ s, [\d,]+ tokens/s\n", done.stderr)
    assert script(run, *greedy, "--no-cache").stdout == done.stdout
    for form, name in {"inference": "inference.ckpt", "safetensors": "safetensors.safetensors", "hf": "hf"}.items():
        assert run_script("export", run, "--format", form).returncode == 0
        assert script(run / name, *greedy).stdout == done.stdout
    both = script(run, "--prompt", "ba", "--prompt", "-", "--lines", "--json", "--num-samples", 2, stdin="ke\n\nko\n")
    found = json.loads(both.stdout)
    assert [text[:2] for text in found["samples"]] == ["ba", "ba", "ke", "ke", "ko", "ko"]
    alone = json.loads(script(run, "--prompt", "ko", "--json").stdout)
    assert alone["samples"] == [found["samples"][4]]  # the same as in a batch
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("ba" * 100)  # longer than the context
    out = tmp_path / "out.jsonl"
    assert script(run, "--prompt-file", prompt, "--stop", ";", "--out", out, "--show-probs", 2).returncode == 0
    [line] = map(json.loads, out.read_text().splitlines())
    assert line["prompt"] == "ba" * 100 and ";" not in line["text"] and len(line["pieces"][0]["top"]) == 2
    piped = f"{shlex.quote(sys.executable)} scripts/generate.py {run} --prompt ba --num-samples 128 --max-new-tokens 800 --json | head -c 3"
    done = subprocess.run(piped, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == '{"r' and "Traceback" not in done.stderr and "Broken" not in done.stderr
    (run / "checkpoints" / "best.ckpt").unlink()  # it may be a link to another checkpoint
    (run / "checkpoints" / "best.ckpt").write_bytes(b"PK")
    cut = tmp_path / "cut.txt"
    cut.write_bytes(b"\xff\xfe\x00")
    for args, message in {
        (run / "checkpoints" / "last.ckpt", "--temperature", -1): "temperature=-1.0 must be 0 (greedy) or above",
        (run / "checkpoints" / "last.ckpt", "--top-k", 0): "top_k=0 must be at least 1",
        (run / "checkpoints" / "last.ckpt", "--prompt", ""): "the prompt is empty",
        (run / "checkpoints" / "last.ckpt", "--prompt", "XY"): "the character vocabulary lacks 'X', 'Y'",
        (
            run / "checkpoints" / "last.ckpt",
            "--prompt-file",
            cut,
        ): f"{cut} is UTF-16; convert it and use the new file: iconv -f UTF-16 -t UTF-8",
        (run,): f"{run / 'checkpoints' / 'best.ckpt'} cannot be loaded: it is truncated",
        (tmp_path / "none",): f"{tmp_path / 'none'}: no such run or checkpoint",
        (): "name one run",
        ("modl=tiny", "--random"): "unknown key modl",
    }.items():
        done = script(*args)
        assert done.returncode == 1 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
    done = script("--random", "model=tiny", "corpus=words", "tokenizer=char", f"data.root={tmp_path}", "--prompt", "ba")
    assert done.returncode == 0 and done.stdout.startswith("ba")


def test_a_run_in_training_gives_its_latest_checkpoint(nano, caplog):
    checkpoints = nano() / "checkpoints"
    (checkpoints / "best.ckpt").unlink()
    (checkpoints / "best.ckpt").write_bytes((checkpoints / "step_000008.ckpt").read_bytes())
    caplog.clear()
    assert load(checkpoints.parent).step == 8 and not caplog.text
    with acquire(checkpoints.parent):
        found = load(checkpoints.parent)
    assert found.step == 12 and "is still training; using its latest checkpoint, from step 12" in caplog.text

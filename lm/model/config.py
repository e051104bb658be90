"""GPTConfig: every choice of the architecture."""

from __future__ import annotations

from dataclasses import dataclass

from lm.check import Check


@dataclass
class GPTConfig:
    """The defaults are GPT-2's choices; the vocabulary is no field, as the tokenizer decides it."""

    n_layer: int = 12
    n_head: int = 12
    n_kv_head: int | None = None  # key and value heads, each for a group of query heads (Ainslie et al. 2023)
    n_embd: int = 768
    block_size: int = 1024  # context: the most tokens the model sees at once
    dropout: float = 0.0  # of embeddings, attention weights and both residual branches; off in eval
    dropout_embd: float | None = None  # null: as `dropout`
    dropout_attn: float | None = None
    dropout_resid: float | None = None
    dropout_mlp: float = 0.0  # of the MLP's hidden units
    bias: bool = True  # in linears and layer norms, the head's aside
    bias_qkv: bool | None = None  # null: as `bias`
    bias_proj: bool | None = None  # of attention's output projection
    bias_mlp: bool | None = None
    bias_norm: bool | None = None
    bias_head: bool = False
    position: str = "learned"  # learned | sinusoidal | rope | none
    position_scale: float | None = None  # of sinusoidal positions; null: as loud as learned ones begin
    rope_theta: float = 10000.0  # the slowest rotation takes some 6 theta positions
    window: int | None = None  # attention looks back over so many positions, a token's own among them; null: all
    norm: str = "layernorm"  # layernorm | rmsnorm, in front of each branch and of the head
    norm_eps: float | None = None  # null: 1e-5 for layernorm, 1e-6 for rmsnorm
    norm_gain: bool = True  # a learnt gain for each channel
    norm_stream: bool = False  # the stream itself is normalised in front of each branch, as in femtoGPT: see Block
    qk_norm: bool = False  # normalise queries and keys (Dehghani et al. 2023): steadier at high learning rates
    mlp: str = "gelu"  # gelu (exact) | gelu_tanh | relu | relu2 | swiglu
    mlp_ratio: float = 4.0  # hidden units per channel; swiglu takes two thirds, in whole tiles of 64
    norm_embd: bool = False  # normalise embeddings in front of the first block, without a gain (nanochat, 2025)
    tie_embeddings: bool = True  # input embedding and output head are one matrix (Press and Wolf 2017)
    logit_softcap: float | None = None  # bend logits so that none exceeds this (Gemma 2, 2024)
    init: str = "normal"  # normal | zero_proj | unit | he_uniform | femtogpt; see GPT.init_weights
    vocab_multiple: int = 1  # pad the embedding's rows to a multiple; logits are of the real ones
    recompute_every: int = 0  # every n-th block keeps no activations and is computed again in backward; 0: none

    def __post_init__(self) -> None:
        check = Check("model", self)
        for key in ("n_layer", "n_head", "n_kv_head", "n_embd", "block_size", "window", "vocab_multiple"):
            check.at_least(key, 1)
        check.at_least("recompute_every", 0)
        for key in ("position_scale", "rope_theta", "norm_eps", "mlp_ratio", "logit_softcap"):
            check.above(key, 0)
        for key in ("dropout", "dropout_embd", "dropout_attn", "dropout_resid", "dropout_mlp"):
            if getattr(self, key) is not None:
                check.within(key, 0, 1)
        check.one_of("position", ("learned", "sinusoidal", "rope", "none"))
        check.one_of("norm", ("layernorm", "rmsnorm"))
        check.one_of("mlp", ("gelu", "gelu_tanh", "relu", "relu2", "swiglu"))
        check.one_of("init", ("normal", "zero_proj", "unit", "he_uniform", "femtogpt"))
        if not check.problems:
            self.check_shape(check)
        check.done()

    def check_shape(self, check: Check) -> None:
        multiple = self.n_head * max(1, round(self.n_embd / self.n_head))
        divisible = self.n_embd % self.n_head == 0
        check.that(divisible, "n_embd", f"be divisible by model.n_head={self.n_head}, e.g. {multiple}")
        even = not divisible or self.position != "rope" or self.n_embd // self.n_head % 2 == 0
        check.that(even, "n_embd", f"give heads of even width under rope, e.g. {2 * multiple}")
        even = self.position != "sinusoidal" or self.n_embd % 2 == 0
        check.that(even, "n_embd", "be even under sinusoidal positions")
        groups = [n for n in range(1, self.n_head + 1) if self.n_head % n == 0]
        check.that(self.n_kv_head in (None, *groups), "n_kv_head", f"divide model.n_head={self.n_head}: be in {groups}")
        untied = self.init != "unit" or not self.tie_embeddings
        check.that(untied, "tie_embeddings", "be false under model.init=unit, which begins with a head of zeros")
        gained = self.norm_gain or not self.bias_norm
        check.that(gained, "bias_norm", "be false or null without model.norm_gain")

    def rows(self, vocab_size: int) -> int:
        """Of the embedding and the head: the vocabulary, padded."""
        return self.vocab_multiple * -(-vocab_size // self.vocab_multiple)

    def dropped(self, place: str) -> float:
        """The dropout at embd, attn or resid."""
        own = getattr(self, f"dropout_{place}")
        return self.dropout if own is None else own

    def biased(self, place: str) -> bool:
        """Whether qkv, proj, mlp or norm has a bias."""
        own = getattr(self, f"bias_{place}")
        return self.bias if own is None else own

"""GPTConfig: all settings of the architecture."""

from __future__ import annotations

from dataclasses import dataclass

from lm.base.checks import Check


@dataclass
class GPTConfig:
    """Settings of the architecture. The defaults are those of GPT-2.

    The size of the vocabulary is not among them, because the tokenizer determines it.
    """

    n_layer: int = 12  # number of transformer blocks
    n_head: int = 12  # attention heads in each block; must divide n_embd
    # key and value heads, each shared by a group of query heads (Ainslie et al. 2023); null: n_head
    n_kv_head: int | None = None
    n_embd: int = 768  # channels of the residual stream (the width of the model)
    block_size: int = 1024  # context length: the most tokens that the model sees at once
    dropout: float = 0.0  # dropout of embeddings, attention weights and both residual branches; off in evaluation
    dropout_embd: float | None = None  # dropout of the embeddings; null: same as dropout
    dropout_attn: float | None = None  # dropout of the attention weights; null: same as dropout
    dropout_resid: float | None = None  # dropout of both residual branches; null: same as dropout
    dropout_mlp: float = 0.0  # dropout of the MLP's hidden units
    bias: bool = True  # bias terms in all linear layers and layer norms except the head
    bias_qkv: bool | None = None  # bias of the query, key and value projection; null: same as bias
    bias_proj: bool | None = None  # bias of attention's output projection; null: same as bias
    bias_mlp: bool | None = None  # bias of the MLP's linear layers; null: same as bias
    bias_norm: bool | None = None  # bias of the layer norms; null: same as bias
    bias_head: bool = False  # bias of the output head
    position: str = "learned"  # position encoding: learned | sinusoidal | rope | none
    # factor of sinusoidal positions; null: as large as learned ones are initialized
    position_scale: float | None = None
    # base of the rotary frequencies: the slowest rotation takes about 6 * rope_theta positions
    rope_theta: float = 10000.0
    window: int | None = None  # sliding window: positions that attention looks back over, its own included; null: all
    norm: str = "layernorm"  # layernorm | rmsnorm, before each branch and before the head
    norm_eps: float | None = None  # added to the variance in norms; null: 1e-5 for layernorm, 1e-6 for rmsnorm
    norm_gain: bool = True  # learned gain for each channel of a norm
    norm_stream: bool = False  # normalize the residual stream itself before each branch, as femtoGPT does (see Block)
    qk_norm: bool = False  # normalize queries and keys (Dehghani et al. 2023): more stable at high learning rates
    mlp: str = "gelu"  # activation of the MLP: gelu (exact) | gelu_tanh | relu | relu2 | swiglu
    # hidden units of the MLP per channel; swiglu uses two thirds of it, rounded to a multiple of 64
    mlp_ratio: float = 4.0
    norm_embd: bool = False  # normalize the embeddings before the first block, without a gain (nanochat, 2025)
    # share one matrix between the input embedding and the output head (Press and Wolf 2017)
    tie_embeddings: bool = True
    # limit logits smoothly to plus or minus this value (Gemma 2, 2024); null: no limit
    logit_softcap: float | None = None
    init: str = "normal"  # initialization: normal | zero_proj | unit | he_uniform | femtogpt (see GPT.init_weights)
    vocab_multiple: int = 1  # pad the rows of the embedding to a multiple of this; logits cover the real tokens only
    # recompute the activations of every n-th block in the backward pass, which saves memory; 0: none
    recompute_every: int = 0

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
        check.require(divisible, "n_embd", f"be divisible by model.n_head={self.n_head}, e.g. {multiple}")
        even = not divisible or self.position != "rope" or self.n_embd // self.n_head % 2 == 0
        check.require(even, "n_embd", f"give heads of even width with position=rope, e.g. {2 * multiple}")
        even = self.position != "sinusoidal" or self.n_embd % 2 == 0
        check.require(even, "n_embd", "be even with position=sinusoidal")
        groups = [n for n in range(1, self.n_head + 1) if self.n_head % n == 0]
        check.require(
            self.n_kv_head in (None, *groups), "n_kv_head", f"divide model.n_head={self.n_head}: be in {groups}"
        )
        untied = self.init != "unit" or not self.tie_embeddings
        check.require(untied, "tie_embeddings", "be false with model.init=unit, which initializes the head with zeros")
        gained = self.norm_gain or not self.bias_norm
        check.require(gained, "bias_norm", "be false or null without model.norm_gain")

    def padded_vocab_size(self, vocab_size: int) -> int:
        """Return the number of rows of the embedding and of the head: the vocabulary, padded to vocab_multiple."""
        return self.vocab_multiple * -(-vocab_size // self.vocab_multiple)

    def dropout_at(self, place: str) -> float:
        """Return the dropout probability at `place`: embd, attn or resid."""
        own = getattr(self, f"dropout_{place}")
        return self.dropout if own is None else own

    def has_bias(self, place: str) -> bool:
        """Return True if `place` (qkv, proj, mlp or norm) has a bias."""
        own = getattr(self, f"bias_{place}")
        return self.bias if own is None else own

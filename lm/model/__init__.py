"""GPT: a decoder-only transformer, usable without the rest of the package.

>>> model = GPT(GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=128), vocab_size=65)
"""

from lm.model.config import GPTConfig
from lm.model.gpt import GPT, with_weights
from lm.model.kv_cache import KVCache
from lm.model.layers import mlp_width, rope_tables, rotate, sinusoids

__all__ = ["GPT", "GPTConfig", "KVCache", "mlp_width", "rope_tables", "rotate", "sinusoids", "with_weights"]

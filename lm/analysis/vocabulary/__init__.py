"""Taking a tokenizer apart: what its vocabulary holds, and what becomes of a text in it."""

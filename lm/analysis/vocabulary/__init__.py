"""Analysis of a tokenizer: the content of its vocabulary, and statistics of a text that it encodes."""

"""Looking into a checkpoint, for scripts/analyze.py: its tokens, its tensors, how far two of them are apart, what of a
text is hard for it."""

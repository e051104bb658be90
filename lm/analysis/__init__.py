"""Analyses of a checkpoint, used by scripts/analyze.py.

They cover token embeddings, tensor statistics, the difference between two checkpoints, and the loss on passages of a
text.
"""

"""Evaluate a trained model: scores on a text, and the tasks of synthetic corpora."""

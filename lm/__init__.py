"""Train small GPT language models: Hydra composes, Lightning runs, every run continues bit for bit."""

__version__ = "0.1.0"

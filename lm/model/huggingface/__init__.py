"""Read and write model directories of Hugging Face transformers, with the architectures GPT-2 and Llama."""

from lm.model.huggingface.directory import CONFIG, architecture, export, load

__all__ = ["CONFIG", "architecture", "export", "load"]

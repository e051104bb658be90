"""Read and write model directories of Hugging Face's transformers: the architectures of GPT-2 and of Llama."""

from lm.model.huggingface.directory import CONFIG, architecture, export, load

__all__ = ["CONFIG", "architecture", "export", "load"]

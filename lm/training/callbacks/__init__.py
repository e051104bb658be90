"""Callbacks that Lightning does not provide, or whose Lightning version does not fit a language model."""

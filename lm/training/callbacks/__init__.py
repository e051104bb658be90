"""Callbacks that Lightning does not have, or whose behavior does not fit a language model."""

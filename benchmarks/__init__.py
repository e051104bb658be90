"""Benchmarks of the project. They are not part of the library `lm`."""

"""Loggers that write to the run directory."""

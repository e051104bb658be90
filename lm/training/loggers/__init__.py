"""Loggers that write into the run directory."""

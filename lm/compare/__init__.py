"""Comparison of runs: reading their directories, tables, pictures, and one HTML page."""

"""Runs beside each other: what their directories tell (reading), as figures (table), as one HTML file (page)."""

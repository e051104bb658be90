"""Several runs by one command: a grid, a search, or a population."""

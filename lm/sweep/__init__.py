"""Start several runs with one command: a grid, a search, or a population."""

# Everything goes through .venv, which is made on first use. PYTHON chooses the interpreter it is made from.
PYTHON ?= python3
PY = .venv/bin/python

.PHONY: help install train test test-slow lint format types docs tensorboard clean

help: ## Show these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

install: .venv/.installed ## Set up .venv from pyproject.toml under constraints.txt

train: .venv/.installed ## Train, e.g. make train ARGS="model=small corpus=text corpus.path=my.txt"
	@$(PY) train.py $(ARGS)

test: .venv/.installed ## Run the fast tests, offline (ARGS="-k name" chooses)
	$(PY) -m pytest -n auto -m "not slow" $(ARGS)

test-slow: .venv/.installed ## Run the slow tests: real processes, killed, stopped, swept
	$(PY) -m pytest -n auto -m slow $(ARGS)

lint: .venv/.installed ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: .venv/.installed ## Rewrite files in the project's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: .venv/.installed ## Check types
	$(PY) -m mypy

docs: .venv/.installed ## Write docs/configuration.md from the comments in the code
	@$(PY) -c "from lm.config.reference import markdown; print(markdown(), end='')" > docs/configuration.md

tensorboard: .venv/.installed ## Show all runs at http://localhost:6006
	$(PY) -m tensorboard.main --logdir outputs

clean: ## Remove .venv and caches; runs and downloads stay
	rm -rf .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

"""The house rules that a reader would otherwise have to trust."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "lm").rglob("*.py"))

# Who stands on whom, lowest first: a module imports from below its own floor.
FLOORS = [
    {"lm"},
    {"changes", "check", "command", "files", "console", "health", "curve"},
    {"download", "cache", "hardware", "loss", "pictures"},
    {"pip_download", "precision", "owner"},
    {"attention", "schedule", "corpus", "batches", "optim"},
    {"tokenizer", "model", "run", "user_text"},
    {"observers", "tokens", "vocabulary", "generate", "hf", "grow", "memory"},
    {"checkpoint", "tasks"},
    {"inherit", "look", "evaluate"},
    {"data", "trainer", "loggers", "sweep"},
    {"module", "callbacks"},
    {"config"},
    {"bare"},
    {"capacity"},
    {"cli", "report", "bench", "find_lr", "compare"},
]


def module(path: Path) -> str:
    parts = path.relative_to(ROOT / "lm").with_suffix("").parts
    return "lm" if parts == ("__init__",) else parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports relatively"
            found |= {f"lm.{alias.name}" for alias in node.names} if node.module == "lm" else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_go_one_way(path):
    floor = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "lm" and len(parts) > 1 and parts[1] in floor:
            same = parts[1] == module(path)  # files of one sub-package
            assert same or floor[parts[1]] < floor[module(path)], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_some_know_hydra_and_lightning(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert module(path) in {"config", "sweep"} or not roots & {"hydra", "omegaconf"}
    assert module(path) in {"data", "module", "callbacks", "trainer", "loggers"} or "lightning" not in roots
    assert "pytorch_lightning" not in roots


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short_and_do_nothing_when_imported(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    for node in ast.parse(text).body:
        doing = isinstance(node, ast.For | ast.While | ast.With | ast.Try) or (
            isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        )
        assert not doing, f"{path}:{node.lineno} runs at import"


def test_every_module_has_a_floor():
    assert {module(path) for path in FILES} <= set().union(*FLOORS)


def test_the_configs_do_not_import_lightning():
    """Hydra imports them at every press of the tab key."""
    code = "import sys, lm.config, lm.report; lm.config.register(); sys.exit(len({'lightning', 'optuna'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

"""Rules about the structure of the code, so that a reader need not take them on trust."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

LM = ROOT / "lm"
FILES = sorted(LM.rglob("*.py"))

# From the ground up: a package imports only from packages on floors below its own.
PACKAGES = [
    {"base"},
    {"data", "optim"},
    {"model"},
    {"memory", "generate", "run"},
    {"evaluate", "analysis", "sweep"},
    {"training"},
    {"config"},
    {"experiment", "compare"},
    {"cli"},
]
# The same inside each package, for its modules and subpackages.
MODULES = {
    "base": [
        {"errors"},
        {"checks", "commands", "console", "files", "imports", "page", "signals"},
        {"hardware", "plotting"},
    ],
    "data": [
        {"cache", "download"},
        {"batches", "package_index"},
        {"corpus"},
        {"tokenizer", "user_text"},
        {"token_files"},
    ],
    "optim": [{"base", "schedule"}, {"classic", "eightbit", "muon"}],
    "model": [
        {"config", "kv_cache", "loss", "meta", "precision"},
        {"attention", "layers"},
        {"block"},
        {"gpt"},
        {"growth", "huggingface"},
    ],
    "memory": [{"operations"}, {"estimate"}],
    "generate": [{"prompts", "sampling", "streaming"}, {"decoding"}, {"writing"}, {"display", "session"}],
    "run": [
        {"changes", "integrity", "lock", "metrics_csv"},
        {"checkpoint", "directory"},
        {"control", "export", "grow", "init_from", "plot"},
    ],
    "evaluate": [{"score", "tasks"}],
    "analysis": [
        {"edits", "figures", "passages", "probes", "tensors", "tokens", "trace", "vocabulary"},
        {"ablation", "attribution", "difference", "heads", "lens", "norms", "page", "patching", "picture", "text"},
        {"activations", "labels", "report", "sparse", "tuned_lens"},
        {"inside"},
        {"interventions"},
    ],
    "sweep": [{"config", "jobs", "processes"}, {"grid"}, {"population", "search"}, {"register"}],
    "training": [{"health", "observers", "trainer"}, {"callbacks", "datamodule", "loggers"}, {"module"}],
    "config": [{"aliases", "help", "schema", "typed"}, {"reference"}, {"errors"}, {"resolve", "words"}, {"load"}],
    "experiment": [
        {
            "corpora",
            "evaluation",
            "loaded",
            "loop",
            "model_table",
            "reproduce",
            "schedules",
            "start",
            "weight_analyses",
        },
        {"analyses", "capacity", "inputs"},
        {"memory_report", "summary", "tokenizer_sources", "untrained"},
        {"build", "catalog", "generation", "tokenizers"},
        {"find_lr"},
        {"find_lr_report"},
    ],
    "compare": [{"reading"}, {"table"}, {"page", "picture"}],
}


def names(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield each (module, name) that a file imports, except those for the type checker alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports relatively"
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def resolved(module: str, name: str | None) -> list[str]:
    """The parts of what is imported; a name that a package's `__init__` re-exports is its module's."""
    folder = ROOT.joinpath(*module.split("."))
    if name is None or not folder.is_dir():
        return module.split(".")
    if (folder / name).is_dir() or (folder / f"{name}.py").exists():
        return [*module.split("."), name]
    origin = next((m for m, n in names(folder / "__init__.py") if n == name), module)
    return origin.split(".")


def imports(path: Path) -> list[list[str]]:
    return [resolved(module, name) for module, name in names(path) if module.split(".")[0] == "lm"]


def place(path: Path) -> tuple[str, ...]:
    return path.relative_to(LM).with_suffix("").parts


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def floors(table: list[set[str]]) -> dict[str, int]:
    return {name: i for i, floor in enumerate(table) for name in floor}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_packages_import_only_from_floors_below(path):
    floor = floors(PACKAGES)
    for parts in imports(path):
        if len(parts) > 1 and parts[1] != place(path)[0]:
            assert floor[parts[1]] < floor[place(path)[0]], f"{label(path)} imports {'.'.join(parts)}"


@pytest.mark.parametrize("path", [p for p in FILES if len(place(p)) > 1 and place(p)[1] != "__init__"], ids=label)
def test_modules_of_a_package_import_only_from_floors_below(path):
    package, module, *_ = place(path)
    floor = floors(MODULES[package])
    for parts in imports(path):
        if parts[1:2] == [package] and len(parts) > 2 and parts[2] != module:
            assert floor[parts[2]] < floor[module], f"{label(path)} imports {'.'.join(parts)}"


def test_the_tables_name_every_package_and_module_and_nothing_else():
    assert {p.name for p in LM.iterdir() if p.is_dir() and p.name != "__pycache__"} == set(MODULES)
    assert set().union(*PACKAGES) == {*MODULES, "cli"}
    for package, table in MODULES.items():
        found = {p.stem for p in (LM / package).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
        assert found - {"__init__"} == set().union(*table), package


@pytest.mark.parametrize("path", FILES, ids=label)
def test_only_some_packages_import_hydra_and_lightning(path):
    roots = {module.split(".")[0] for module, _ in names(path)}
    assert place(path)[0] in {"config", "sweep"} or not roots & {"hydra", "omegaconf"}
    assert place(path)[0] == "training" or "lightning" not in roots
    assert not roots & {"pytorch_lightning", "benchmarks", "scripts", "tests"}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_files_are_short_and_do_nothing_at_import(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    for node in ast.parse(text).body:
        acts = isinstance(node, ast.For | ast.While | ast.With | ast.Try) or (
            isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        )
        assert not acts, f"{path}:{node.lineno} runs at import"


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=label)
def test_init_files_hold_no_logic(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if getattr(node, "name", None) != "__getattr__":  # lm.load is imported when it is used
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If), f"{path}:{node.lineno}"


@pytest.mark.slow
def test_composing_a_config_does_not_import_lightning():
    """Hydra imports the config classes at every press of the tab key, and Lightning takes seconds to import."""
    code = "import sys, lm.config, lm.experiment.summary; lm.config.register(); "
    code += "sys.exit(len({'lightning', 'optuna'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

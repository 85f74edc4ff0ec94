"""Imports go down only: the table of docs/architecture.md, enforced on the syntax trees of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shapeflow

PACKAGE = Path(shapeflow.__file__).parent

LAYERS = {
    0: {"errors", "memory", "ragged", "replay", "resources", "warm"},
    1: {"ops", "shape", "closest", "sampling", "io", "prepare"},
    2: {"hamiltonian", "metric", "normalization", "attachment", "batch"},
    3: {"shooting", "integrators", "flow"},
    4: {"optimize"},
    5: {"matching", "atlas"},
    6: {"tables", "statistics", "evaluation"},
    7: {
        "cli",
        "study",
        "report",
        "figures",
        "config",
        "demo",
        "job",
        "launch",
        "locking",
        "inventory",
        "mat",
        "keeping",
        "progress",
    },
}
LAYER = {module: layer for layer, modules in LAYERS.items() for module in modules}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(path: Path, module_level: bool = False) -> set[tuple[str, ...]]:
    """Dotted names that a file imports, as tuples; relative imports resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _top_level(tree) if module_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = ("shapeflow", *path.relative_to(PACKAGE).parts[: -node.level], *base)
            found |= {(*base, alias.name) for alias in node.names}
    return found


def _top_level(node: ast.AST):
    """Statements that run when the module is imported: not those of functions, not those for a type checker."""
    for child in ast.iter_child_nodes(node):
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or checking:
            continue
        yield child
        yield from _top_level(child)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    own = module_of(path)
    if own == "__init__":
        return  # the package's face: it may show every layer
    assert own in LAYER, f"shapeflow.{own} has no layer: add it to the table here and in docs/architecture.md"
    for name in imported(path):
        if name[0] != "shapeflow" or len(name) < 2 or name[1] not in LAYER:
            continue
        assert LAYER[name[1]] <= LAYER[own], (
            f"{own} (layer {LAYER[own]}) imports {'.'.join(name)} (layer {LAYER[name[1]]})"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_who_may_import_what(path: Path) -> None:
    own, roots = module_of(path), {name[0] for name in imported(path)}
    if "hydra" in roots or "omegaconf" in roots:
        assert own in ("config", "cli"), f"only config (and the launcher) import Hydra, but {own} does"
    assert "snakemake" not in {name[0] for name in imported(path, module_level=True)}, (
        f"{own} imports Snakemake at module level"
    )
    if own in ("io", "prepare", "config"):
        assert "torch" not in roots, f"{own} imports torch: its jobs should not pay for it"


def test_torch_stays_out_of_planning() -> None:
    """By running it: neither reading shapes nor planning a study loads torch, and reading a plan loads no Hydra."""
    code = (
        "import sys; import shapeflow.io, shapeflow.prepare, shapeflow.config.plan, shapeflow.cli; "
        f"import {', '.join('shapeflow.study.' + p.stem for p in (PACKAGE / 'study').glob('[!_]*.py'))}; "
        "heavy = [m for m in ('torch', 'hydra', 'snakemake') if m in sys.modules]; sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"loaded without need: {done.stderr}"


def test_what_the_package_shows_is_listed_typed_and_there() -> None:
    """Names load at first use, so editors and type checkers read them elsewhere: the lists must agree."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = (n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))
    typed = {alias.name for n in checked.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    shown = set(shapeflow.__all__) - {"__version__"}
    assert typed == shown == set(shapeflow._EXPORTS) <= set(dir(shapeflow))
    assert all(callable(getattr(shapeflow, name)) for name in shown)
    assert (PACKAGE / "py.typed").is_file()

"""A digest of the code behind a step, so that editing the package reruns what it must and nothing else.

Snakemake sees a rule's script and its parameters, not the package that the script calls. A step is a module of `shapeflow.study`; its digest covers
that module and every module of shapeflow that it imports, at its top or inside a function, however deep. Sources are compared as syntax trees
without docstrings: a comment or a reformatted line reruns nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from shapeflow.errors import ShapeflowError
from shapeflow.resources import resource

PACKAGE = Path(__file__).resolve().parents[1]
_SOURCES = (".cu", ".cpp", ".h", ".cuh", ".hpp")


def source_digest(step: str) -> str:
    """12 hex digits for the step `step`: the code that its module reaches."""
    modules = _reached(step)
    text = hashlib.sha256("".join(_read(module)[0] for module in modules).encode())
    if any("ops" in module.parts for module in modules):
        text.update(_kernels().encode())
    return text.hexdigest()[:12]


def step_modules(step: str) -> tuple[str, ...]:
    """Dotted names of the modules that a step's digest covers."""
    return tuple(".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in _reached(step))


def _reached(step: str) -> list[Path]:
    """Files of the step's module and of all that it imports, in order."""
    steps = PACKAGE / "study"
    if not (steps / f"{step}.py").is_file():
        known = ", ".join(sorted(p.stem for p in steps.glob("[!_]*.py")))
        raise ShapeflowError(f"shapeflow.study has no step {step!r}; its modules are {known}")
    return sorted(_closure(steps / f"{step}.py"))


def _closure(root: Path) -> set[Path]:
    found, todo, ops = set(), [root], PACKAGE / "ops"
    everything = sorted(ops.rglob("*.py"))
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _read(path)[1]
            if ops in path.parents:
                todo += everything  # backends are imported by name, which no syntax tree shows
                everything = []
    return found


@lru_cache(maxsize=512)
def _read(path: Path) -> tuple[str, frozenset[Path]]:
    """A module's fingerprint, and the files of shapeflow that it imports. Its tree is not kept: every `snakemake` call reads the whole package."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imports: set[Path] = set()
    for node in _statements(tree):
        imports |= _imported(node, path)
        _drop_docstring(node)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(imports)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and the statements below it, however deep: what imports, or carries a docstring, is never part of an expression."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _statements(child)


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:]


def _imported(node: ast.AST, where: Path) -> set[Path]:
    """Files of shapeflow that a statement imports. A package brings its __init__; shapeflow's own counts for nothing."""
    if isinstance(node, ast.Import):
        return {file for alias in node.names for file in _files(alias.name)}
    if not isinstance(node, ast.ImportFrom):
        return set()
    base = node.module or ""
    if node.level:
        parts = where.relative_to(PACKAGE.parent).parts[: -node.level]
        base = ".".join([*parts, *([base] if base else [])])
    return {file for alias in node.names for file in _files(f"{base}.{alias.name}") or _files(base)}


def _files(module: str) -> set[Path]:
    parts = module.split(".")
    if parts[0] != "shapeflow" or len(parts) < 2:
        return set()
    found = set()
    for i in range(1, len(parts)):
        package = PACKAGE.joinpath(*parts[1:i], "__init__.py")
        if i > 1 and package.is_file():
            found.add(package)
    file, package = PACKAGE.joinpath(*parts[1:]).with_suffix(".py"), PACKAGE.joinpath(*parts[1:], "__init__.py")
    if file.is_file():
        return found | {file}
    return found | {package} if package.is_file() else set()


@lru_cache(maxsize=1)
def _kernels() -> str:
    try:
        folder = resource("kernels")
    except ShapeflowError:
        return ""
    files = sorted(p for p in folder.rglob("*") if p.suffix in _SOURCES)
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()

"""A digest of the code behind a step, so that editing the package reruns what it must and nothing else.

Snakemake sees a rule's script and its parameters, not the package that the script calls. A step is a function of `shapeflow.study`; its digest
covers that function, the module-level names of `study` that it reaches, and every module of shapeflow that these import, however deep. Sources are
compared as syntax trees without docstrings: a comment or a reformatted line reruns nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from shapeflow.errors import ShapeflowError
from shapeflow.resources import resource

PACKAGE = Path(__file__).resolve().parents[1]
_SOURCES = (".cu", ".cpp", ".h", ".cuh", ".hpp")


def source_digest(step: str) -> str:
    """12 hex digits for the function `step` of shapeflow.study."""
    study = _tree(PACKAGE / "study.py")
    names = {node.name: node for node in study.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {
        t.id: node
        for node in study.body
        if isinstance(node, ast.Assign)
        for t in node.targets
        if isinstance(t, ast.Name)
    }
    if step not in names:
        raise ShapeflowError(f"shapeflow.study has no step {step!r}; its names are {', '.join(sorted(names))}")
    reached = _reached(step, names)
    imported = {
        imp
        for node in study.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for imp in _used(node, reached, names)
    }
    roots = imported.union(*(_imports(names[name], PACKAGE / "study.py") for name in reached))
    modules = sorted(_closure(frozenset(roots)))
    text = hashlib.sha256()
    for name in sorted(reached):
        text.update(ast.dump(names[name]).encode())
    for module in modules:
        text.update(_fingerprint(module).encode())
    if any("ops" in module.parts for module in modules):
        text.update(_kernels().encode())
    return text.hexdigest()[:12]


def step_modules(step: str) -> tuple[str, ...]:
    """Dotted names of the modules that a step's digest covers."""
    study = _tree(PACKAGE / "study.py")
    names = {node.name: node for node in study.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    reached = _reached(step, names)
    roots = set().union(*(_imports(names[name], PACKAGE / "study.py") for name in reached))
    return tuple(
        sorted(".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in _closure(frozenset(roots)))
    )


def _reached(step: str, names: Mapping[str, ast.stmt]) -> set[str]:
    found, todo = set(), [step]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [n.id for n in ast.walk(names[name]) if isinstance(n, ast.Name) and n.id in names]
    return found


def _used(node: ast.Import | ast.ImportFrom, reached: set[str], names: Mapping[str, ast.stmt]) -> set[Path]:
    """Modules of a top-level import of study.py, if a reached name uses them."""
    bound = {(a.asname or a.name).split(".")[0] for a in node.names}
    used = {n.id for name in reached for n in ast.walk(names[name]) if isinstance(n, ast.Name)}
    return _imports(node, PACKAGE / "study.py") if bound & used else set()


@lru_cache(maxsize=64)
def _closure(roots: frozenset[Path]) -> frozenset[Path]:
    found, todo, ops = set(), list(roots), PACKAGE / "ops"
    everything = sorted(ops.rglob("*.py"))
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _module_imports(path)
            if ops in path.parents:
                todo += everything  # backends are imported by name, which no syntax tree shows
                everything = []
    return frozenset(found)


@lru_cache(maxsize=512)
def _module_imports(path: Path) -> frozenset[Path]:
    return frozenset(_imports(_tree(path), path))


def _imports(node: ast.AST, where: Path) -> set[Path]:
    """Files of shapeflow that the imports below `node` name. A package brings its __init__; shapeflow's own counts for nothing."""
    found: set[Path] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                found |= _files(alias.name)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parts = where.relative_to(PACKAGE.parent).parts[: -child.level]
                base = ".".join([*parts, *([base] if base else [])])
            for alias in child.names:
                found |= _files(f"{base}.{alias.name}") or _files(base)
    return found


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


@lru_cache(maxsize=512)
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@lru_cache(maxsize=512)
def _fingerprint(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@lru_cache(maxsize=1)
def _kernels() -> str:
    try:
        folder = resource("kernels")
    except ShapeflowError:
        return ""
    files = sorted(p for p in folder.rglob("*") if p.suffix in _SOURCES)
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()

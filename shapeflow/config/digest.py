"""A digest of the code behind a step, so that editing the package reruns what it must and nothing else.

Snakemake sees a rule's script and its parameters, not the package that the script calls. A step is a module of `shapeflow.study`; its digest covers
that module and every module of shapeflow that it imports, at its top or inside a function, however deep. Sources are compared as syntax trees
without docstrings: a comment or a reformatted line reruns nothing.
"""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

from shapeflow.errors import ShapeflowError
from shapeflow.resources import resource

PACKAGE = Path(__file__).resolve().parents[1]
_SOURCES = (".cu", ".cpp", ".h", ".cuh", ".hpp")


def source_digest(step: str) -> str:
    """12 hex digits for the step `step`: the code that its module reaches."""
    modules = _reached(step)
    text = hashlib.sha256("".join(_fingerprint(module) for module in modules).encode())
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
            todo += _module_imports(path)
            if ops in path.parents:
                todo += everything  # backends are imported by name, which no syntax tree shows
                everything = []
    return found


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
    tree = _tree(path)  # parsed once: without its docstrings it imports what it did
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

"""A door for Octave, MATLAB and anything else that reads MAT files: `python -m shapeflow.mat FUNCTION in.mat out.mat`.

The variables of in.mat are the function's arguments by name; its results are written to out.mat. Numbers, character arrays and matrices mean what
they do in those languages: a 1 × 1 matrix is a number, indices begin at one.

    kernel_product         x, y, b, sigma [kernel, rows, columns, backend]   ->   v
    kernel_product_grad    a, x, y, b, sigma [...]                           ->   g
    kernel_product_fused   a, x, y, b, sigma [...]                           ->   v, g
    kernel_logsumexp       x, y, h, sigma [rows, columns, backend]           ->   l
    match                  source, target (n, d); source_simplices, target_simplices (m, k), points alone without them; sigma and any other
                           field of MatchingSpec   ->   momenta, deformed (n, d), history, row (a structure)

`rows` and `columns` are B + 1 offsets that begin at zero (they count points). Files are of MATLAB's formats up to 7: `save -v7`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from scipy.io import loadmat, savemat

from shapeflow.errors import ShapeflowError
from shapeflow.io.files import replacing
from shapeflow.matching import MatchingSpec, match
from shapeflow.ops import kernel_logsumexp, kernel_product, kernel_product_fused, kernel_product_grad
from shapeflow.shape import Shape

Values = dict[str, Any]
_OPTIONS = {f.name for f in fields(MatchingSpec)}


def _kernel(function: Callable, *results: str) -> Callable[[Values], Values]:
    def call(arguments: Values) -> Values:
        try:
            out = function(**arguments)
        except TypeError as error:  # a name too many or too few
            raise ShapeflowError(f"{error}; received {', '.join(sorted(arguments))}") from None
        return dict(zip(results, out if len(results) > 1 else (out,), strict=True))

    return call


def _match(arguments: Values) -> Values:
    def shape(name: str) -> Shape:
        if name not in arguments:
            raise ShapeflowError(f"match needs `{name}`, (n, d) points; received {', '.join(sorted(arguments))}")
        points, simplices = arguments.pop(name), arguments.pop(f"{name}_simplices", None)
        if simplices is None:
            return Shape(points)
        if np.size(simplices) and np.min(simplices) < 1:
            raise ShapeflowError(
                f"`{name}_simplices` has index {np.min(simplices):g}; in a MAT file indices begin at one"
            )
        return Shape(points, np.asarray(simplices).astype(np.int64) - 1)

    source, target = shape("source"), shape("target")
    known = {f.name: f.type for f in fields(MatchingSpec)}
    if unknown := sorted(set(arguments) - set(known)):
        raise ShapeflowError(f"match has no option {', '.join(unknown)}: write source, target or {', '.join(known)}")
    whole: Values = {k: int(v) if str(known[k]).startswith("int") else v for k, v in arguments.items()}
    if "attachment_widths" in whole:
        whole["attachment_widths"] = tuple(float(w) for w in np.ravel(whole["attachment_widths"]))
    result = match([source], [target], MatchingSpec(**whole))
    row = {k: v for k, v in result.rows[0].items() if isinstance(v, str | int | float)}
    return {
        "momenta": result.momenta[0], "deformed": result.deformed[0].points, "history": np.array(result.history[0]), "row": row,
    }  # fmt: skip


FUNCTIONS: Mapping[str, Callable[[Values], Values]] = {
    "kernel_product": _kernel(kernel_product, "v"),
    "kernel_product_grad": _kernel(kernel_product_grad, "g"),
    "kernel_product_fused": _kernel(kernel_product_fused, "v", "g"),
    "kernel_logsumexp": _kernel(kernel_logsumexp, "l"),
    "match": _match,
}


_OTHERS = {"O": "a cell array", "V": "a structure", "c": "complex"}


def _read(path: str) -> Values:
    try:
        found = loadmat(path)
    except OSError:
        raise
    except Exception as error:  # whatever SciPy's parser stumbles over: Octave's own text, HDF5 (-v7.3), half a file
        raise ShapeflowError(
            f'{path} is no MAT file of format 7 or earlier ({error}): save with -v7, as in save("-v7", "{path}", "x", "y")'
        ) from error
    return {name: _argument(name, value) for name, value in found.items() if not name.startswith("__")}


def _argument(name: str, value: Any) -> Any:
    kind = value.dtype.kind if isinstance(value, np.ndarray) else "sparse"
    if kind not in "USbiuf":
        raise ShapeflowError(f"`{name}` is {_OTHERS.get(kind, kind)}; expected a full real matrix, a number or text")
    if value.dtype.kind in "US":
        return str(value.item()) if value.size else ""
    if value.size == 1 and name in _OPTIONS:
        return value.item()
    if name in ("rows", "columns"):
        return value.ravel().astype(np.int64)
    return value.ravel() if name in ("sigma", "h") else value


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m shapeflow.mat", description="Call shapeflow through MAT files.")
    parser.add_argument("function", choices=sorted(FUNCTIONS))
    parser.add_argument("input", help="MAT file whose variables are the arguments")
    parser.add_argument("output", help="MAT file to write")
    asked = parser.parse_args(words)
    try:
        results = FUNCTIONS[asked.function](_read(asked.input))
    except (ShapeflowError, OSError) as error:
        sys.exit(f"shapeflow: {error}")
    with replacing(asked.output) as temporary:
        savemat(temporary, results, appendmat=False, oned_as="column", long_field_names=True)


if __name__ == "__main__":
    main()

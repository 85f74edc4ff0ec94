"""Radial kernels k(x, y) = Σ_m w_m f_m(r² / (ρ_m σ)²), with r = |x − y| and σ in mesh units: no hidden factor 2.

| name                 | f(s)                       |
| -------------------- | -------------------------- |
| gaussian             | exp(−s)                    |
| laplacian            | exp(−√(s + ε²) + ε)        |
| cauchy               | 1 / (1 + s)                |
| inverse_multiquadric | (1 + s)^(−1/2)             |
| energy               | (1 + s)^(−1/4)             |

All are positive and positive definite. ε makes the laplacian twice differentiable at r = 0; it is part of the kernel
and is recorded. The formulas use methods that torch tensors and KeOps' LazyTensors share, so they are written once
for both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shapeflow.errors import KernelError

LAPLACIAN_EPSILON = 1e-3

_POWERS = {"cauchy": 1.0, "inverse_multiquadric": 0.5, "energy": 0.25}
KERNELS = ("gaussian", "laplacian", *_POWERS)

_TERM = re.compile(r"^(?:(?P<weight>[0-9.eE+-]+)\*)?(?P<name>[a-z_]+)(?:@(?P<ratio>[0-9.eE+-]+))?$")


@dataclass(frozen=True)
class Term:
    """One term of a kernel: `weight` · f_name(r² / (`ratio` σ)²)."""

    name: str
    weight: float = 1.0
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in KERNELS:
            raise KernelError(
                f"unknown kernel {self.name!r}: write one of {', '.join(KERNELS)}, or a sum such as '0.5*gaussian + 0.5*gaussian@4'"
            )
        for label, value in (("weight", self.weight), ("width ratio", self.ratio)):
            if not (value > 0 and math.isfinite(value)):
                raise KernelError(f"the {label} of kernel {self.name!r} must be a positive number; received {value}")

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"{self.weight!r}*"
        ratio = "" if self.ratio == 1 else f"@{self.ratio!r}"
        return f"{weight}{self.name}{ratio}"


@dataclass(frozen=True)
class Radial:
    """A kernel: a sum of terms that share r² (so a multi-scale kernel is still one pass over the pairs)."""

    terms: tuple[Term, ...]
    epsilon: float = LAPLACIAN_EPSILON

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise KernelError(f"the ε of the laplacian must be a positive number; received {self.epsilon}")

    def __str__(self) -> str:
        """Canonical text, read back by `parse`: the form in which a kernel crosses an operator's schema and enters a
        cache key.
        """
        text = " + ".join(map(str, self.terms))
        return text if self.epsilon == LAPLACIAN_EPSILON else f"{text} ; {self.epsilon!r}"

    @staticmethod
    def parse(text: str | Radial) -> Radial:
        """Read `gaussian`, `0.5*gaussian@1 + 0.5*cauchy@2`, or either followed by `; ε` for another laplacian ε."""
        return text if isinstance(text, Radial) else _parse(text)

    # s = r²/σ² below is a torch tensor or a KeOps LazyTensor.

    def value(self, s: Any) -> Any:
        """f(s)."""
        return _total(t.weight * _value(t.name, s * t.ratio**-2, self.epsilon) for t in self.terms)

    def slope(self, s: Any) -> Any:
        """f'(s)."""
        return _total(t.weight * t.ratio**-2 * _slope(t.name, s * t.ratio**-2, self.epsilon) for t in self.terms)

    def curvature(self, s: Any) -> Any:
        """f''(s)."""
        return _total(t.weight * t.ratio**-4 * _curvature(t.name, s * t.ratio**-2, self.epsilon) for t in self.terms)


@lru_cache(maxsize=256)
def _parse(text: str) -> Radial:
    body, _, tail = text.partition(";")
    terms = []
    for part in re.split(r"\s+\+\s+", body.strip()):
        match = _TERM.match(part.replace(" ", ""))
        if match is None:
            raise KernelError(
                f"cannot read kernel {text!r} at {part!r}: write a name such as 'gaussian', or 'weight*name@ratio' terms joined by ' + '"
            )
        weight, ratio = (_number(match[key] or "1", text) for key in ("weight", "ratio"))
        terms.append(Term(match["name"], weight, ratio))
    return Radial(tuple(terms), _number(tail, text) if tail.strip() else LAPLACIAN_EPSILON)


def _number(part: str, text: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise KernelError(f"cannot read kernel {text!r}: {part.strip()!r} is no number") from None


def _total(parts: Any) -> Any:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _power(s: Any, exponent: float) -> Any:
    """(1 + s)^(−exponent) for exponent 1, 1/2, 1/4, from operations that every backend has."""
    if exponent == 1.0:
        return 1 / (1 + s)
    return (1 + s).rsqrt() if exponent == 0.5 else (1 + s).sqrt().rsqrt()


def _value(name: str, s: Any, eps: float) -> Any:
    if name == "gaussian":
        return (-s).exp()
    if name == "laplacian":
        return (eps - (s + eps**2).sqrt()).exp()
    return _power(s, _POWERS[name])


def _slope(name: str, s: Any, eps: float) -> Any:
    if name == "gaussian":
        return -((-s).exp())
    if name == "laplacian":
        u = (s + eps**2).sqrt()
        return -0.5 * (eps - u).exp() / u
    c = _POWERS[name]
    return -c * _power(s, c) / (1 + s)


def _curvature(name: str, s: Any, eps: float) -> Any:
    if name == "gaussian":
        return (-s).exp()
    if name == "laplacian":
        u = (s + eps**2).sqrt()
        return 0.25 * (eps - u).exp() * (1 + u) / (u * u * u)
    c = _POWERS[name]
    return c * (c + 1) * _power(s, c) / ((1 + s) * (1 + s))

"""The kernels' sources as one string each: local headers are inlined, so that the string alone decides what is compiled."""

from __future__ import annotations

import re
from functools import cache

from shapeflow.resources import resource

_INCLUDE = re.compile(r'^\s*#include "(?P<name>[^"]+)"\s*$')


@cache
def flatten(name: str) -> str:
    """The text of kernels/`name` with every `#include "…"` replaced by that file, once each (`#pragma once`).

    `#line` marks keep the compiler's messages pointing at the original file and line.
    """
    return "".join(_lines(name, set()))


def _lines(name: str, seen: set[str]):
    seen.add(name)
    yield f'#line 1 "{name}"\n'
    for number, line in enumerate(
        (resource("kernels") / name).read_text(encoding="utf-8").splitlines(keepends=True), start=1
    ):
        match = _INCLUDE.match(line)
        if match is None:
            yield "\n" if line.startswith("#pragma once") else line
        elif match["name"] not in seen:
            yield from _lines(match["name"], seen)
            yield f'\n#line {number + 1} "{name}"\n'

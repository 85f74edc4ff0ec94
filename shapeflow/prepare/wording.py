"""Words of findings: counted nouns, and overrides that can be pasted as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOUNS = {"surfaces": "triangle", "curves": "segment", "points": "point"}


def counted(n: int, noun: str, verb: str | None = None) -> str:
    """ "1 triangle repeats", "7 triangles repeat": the verb is given in its plural."""
    plural = noun[:-2] + "ices" if noun.endswith("ex") else noun + "s"
    third = {"are": "is", "have": "has", "lie": "lies"}.get(verb or "", f"{verb}s")
    return f"{n} {noun if n == 1 else plural}" + ("" if verb is None else f" {third if n == 1 else verb}")


def simplex(kind: object) -> str:
    """What a simplex of this kind of shape is called."""
    return _NOUNS.get(str(kind), "simplex")


def listed(key: str, subjects: Iterable[str]) -> str:
    """`key=[a,b]`, as Hydra reads it: names that it would take for a number or a constant, or could not read, are quoted."""
    return f"{key}=[{','.join(s if _plain(s) else repr(s) for s in subjects)}]"


def scaled(subject: str, factor: float | None) -> str:
    """`prepare.scale={s07:0.1}`, None for a factor to be filled in. Keys of Hydra's dictionaries cannot be quoted: names that need it go to a YAML file."""
    number = "<factor>" if factor is None else f"{factor:.6g}"
    if _plain(subject) or re.fullmatch(r"0|[1-9]\d*|0\d+", subject):
        return f"prepare.scale={{{subject}:{number}}} (several subjects go between the same braces)"
    return f"prepare: {{scale: {{{subject!r}: {number}}}}} in a file of your own in experiment/, since this name cannot stand on the command line"


def _plain(name: str) -> bool:
    if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name) or name.lower() in ("true", "false", "null"):
        return False
    try:
        float(name)  # 12, 1e3, nan, and 1_2, which is twelve
    except ValueError:
        return True
    return False

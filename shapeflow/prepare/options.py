"""What preparation does to every mesh: one switch a step, each recorded per subject in the quality table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shapeflow.errors import ConfigError

ALIGNMENTS = ("none", "auto", "landmarks", "gpa", "pca_icp")


@dataclass(frozen=True)
class Prepare:
    """Defaults suit clean and slightly dirty surfaces. Steps run in the order of the fields.

    scale             factor on the coordinates: one number, or a mapping from subject to number (others: 1).
    mirror            subjects to reflect (their first coordinate changes sign, triangles keep facing outwards). Never done unasked.
    drop_nan          drop vertices that are not finite, with the simplices at them.
    merge             merge vertices nearer than `merge_tolerance` (a share of the size; 0: identical coordinates only).
    drop_degenerate   drop triangles without area and edges without length; drop_duplicates: repeated simplices.
    components        "all", "largest", or the share of the largest one's area (length) under which a component is dropped.
    orient            turn triangles so that neighbours agree and closed components face outwards; closed planar curves anticlockwise.
    drop_unreferenced drop vertices that no simplex uses.
    fill_holes        close boundary loops of at most this many edges (0: none).
    smooth            rounds of Taubin smoothing (0: none).
    resample          "decimate" (quadric collapses; vertices of the result lie near the surface), "remesh" (even triangles) or "none".
    n_points          vertices wanted; None: as many as the file has.
    keep_full         also write the cleaned full-resolution mesh in the aligned frame, with where each vertex lies on the decimated one.
    align             "none", "landmarks" (to the reference's), "gpa" (to the mean, of landmarks or of corresponding vertices), "pca_icp"
                      (principal axes, then closest points), "auto" (landmarks when every subject has them, else pca_icp).
    similarity        alignment may also change size; the factor is recorded. Otherwise it is rigid.
    reference         subject whose frame is used; None: the one nearest to all others.
    on_bad            "stop" before any result when a subject cannot be used, or "skip" it and go on.
    """

    scale: float | Mapping[str, float] = 1.0
    mirror: tuple[str, ...] = ()
    drop_nan: bool = True
    merge: bool = True
    merge_tolerance: float = 0.0
    drop_degenerate: bool = True
    drop_duplicates: bool = True
    components: str | float = 0.01
    orient: bool = True
    drop_unreferenced: bool = True
    fill_holes: int = 0
    smooth: int = 0
    resample: str = "decimate"
    n_points: int | None = 500
    keep_full: bool = True
    align: str = "auto"
    similarity: bool = False
    reference: str | None = None
    on_bad: str = "stop"

    def __post_init__(self) -> None:
        mirror = (self.mirror,) if isinstance(self.mirror, str) else tuple(str(m) for m in self.mirror or ())
        object.__setattr__(self, "mirror", mirror)
        if isinstance(self.scale, Mapping):  # a subject that is called 7 is a number to YAML
            object.__setattr__(self, "scale", {str(k): v for k, v in self.scale.items()})
        _choice("align", self.align, ALIGNMENTS)
        _choice("resample", self.resample, ("none", "decimate", "remesh"))
        _choice("on_bad", self.on_bad, ("stop", "skip"))
        if self.n_points is not None and self.n_points < 3:
            raise ConfigError(f"prepare.n_points is {self.n_points}; expected at least 3, or null to keep every vertex")
        factors = self.scale.values() if isinstance(self.scale, Mapping) else (self.scale,)
        if not all(isinstance(f, int | float) and 0 < f < float("inf") for f in factors):
            raise ConfigError(
                f"prepare.scale is {self.scale!r}; expected a positive number, or {{subject: number}}. To reflect, write prepare.mirror"
            )
        if isinstance(self.components, str):
            _choice("components", self.components, ("all", "largest"))
        elif not 0 <= self.components <= 1:
            raise ConfigError(
                f"prepare.components is {self.components}; expected all, largest, or a share between 0 and 1"
            )
        for name in ("merge_tolerance", "smooth", "fill_holes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"prepare.{name} is {getattr(self, name)}; expected 0 or more")

    def factor(self, subject: str) -> float:
        return float(self.scale.get(subject, 1.0)) if isinstance(self.scale, Mapping) else float(self.scale)


def _choice(key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"prepare.{key} is {value!r}; expected {', '.join(allowed[:-1])} or {allowed[-1]}")

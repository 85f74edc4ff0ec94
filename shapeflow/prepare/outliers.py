"""What only the cohort can tell: sizes, poses, units, duplicates, mirror images, shapes that align badly.

Spreads are robust: with m the median and s = 1.4826 median |x - m|, a subject is an outlier when |x - m| > 6 s *and* the difference matters (the
second condition keeps a cohort of near-identical shapes from flagging noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shapeflow.prepare.alignment import Alignment
from shapeflow.prepare.findings import Finding

UNITS = {
    1000.0: "m or um",
    100.0: "m",
    10.0: "cm",
    25.4: "inches",
    0.1: "cm",
    0.01: "m",
    0.001: "m or um",
    1 / 25.4: "inches",
}


def of_cohort(ids: Sequence[str], facts: Sequence[Mapping[str, Any]], unit: str | None, aligned: bool) -> list[Finding]:
    """Findings about sizes, poses, kinds and duplicates, from the facts alone."""
    if len(ids) < 2:
        return []
    return [*_kinds(ids, facts), *_sizes(ids, facts, unit), *_poses(ids, facts, aligned), *_duplicates(ids, facts)]


def _kinds(ids: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
    kinds = [f"{f['kind']} in {f['dimension']}-D" for f in facts]
    names, counts = np.unique(kinds, return_counts=True)
    usual = str(names[int(np.argmax(counts))])
    return [
        Finding(
            i,
            "error",
            "kind",
            f"holds {k}, while most of the cohort holds {usual}",
            f"exclude it (dataset.exclude=[{i}]) or export it again",
        )
        for i, k in zip(ids, kinds, strict=True)
        if k != usual
    ]


def _robust(x: np.ndarray) -> tuple[np.ndarray, float]:
    """(deviations from the median, robust spread)."""
    deviation = x - np.median(x)
    return deviation, float(1.4826 * np.median(np.abs(deviation)))


def _sizes(ids: Sequence[str], facts: Sequence[Mapping[str, Any]], unit: str | None) -> list[Finding]:
    size = np.array([float(f.get("centroid_size") or 0.0) or np.nan for f in facts])
    deviation, spread = _robust(np.log(np.where(np.isfinite(size), size, np.nanmedian(size))))
    out = []
    for i, d in zip(ids, deviation.tolist(), strict=True):
        if abs(d) <= max(6 * spread, np.log(1.6)):
            continue
        ratio = float(np.exp(d))
        text = (
            f"is {ratio:.3g} times as large as the median of the cohort"
            if ratio > 1
            else f"is {1 / ratio:.3g} times smaller than the median of the cohort"
        )
        near = [u for u in UNITS if abs(np.log(ratio / u)) < min(0.35, 3 * spread + 0.1)]
        if near:
            factor = 1 / min(near, key=lambda u: abs(np.log(ratio / u)))
            guess = f"; a factor of {1 / factor:g} looks like another unit" + (f" than {unit}" if unit else "")
            out.append(
                Finding(
                    i,
                    "warning",
                    "unit",
                    text + guess,
                    f"write +prepare.scale.{i}={factor:g} (prepare.scale: {{{i}: {factor:g}}})",
                )
            )
        else:
            out.append(
                Finding(
                    i,
                    "warning",
                    "size",
                    text,
                    f"look at it; exclude it (dataset.exclude=[{i}]) or scale it (prepare.scale: {{{i}: <factor>}})",
                )
            )
    return out


def _poses(ids: Sequence[str], facts: Sequence[Mapping[str, Any]], aligned: bool) -> list[Finding]:
    """Subjects that lie elsewhere than a cohort which otherwise shares a frame; or a cohort that shares none."""
    if len({f["dimension"] for f in facts}) > 1 or any("centroid" not in f for f in facts):
        return []
    centroid = np.array([f["centroid"] for f in facts])
    size = float(np.median([f["centroid_size"] for f in facts])) or 1.0
    distance = np.linalg.norm(centroid - np.median(centroid, axis=0), axis=1) / size
    axes = np.array([f["axis"] for f in facts])
    main = np.linalg.svd(axes)[2][0]
    angle = np.degrees(np.arccos(np.clip(np.abs(axes @ main), 0, 1)))
    if np.median(distance) > 1.0 or np.median(angle) > 30:
        done = (
            "alignment brings them into one"
            if aligned
            else "write prepare.align=auto, or distances will measure the poses"
        )
        what = f"subjects lie in frames of their own (half of them more than {np.median(distance):.2g} sizes or {np.median(angle):.0f} degrees off)"
        return [Finding("", "info" if aligned else "warning", "frames", what, done)]
    out = []
    for i, r, a in zip(ids, distance, angle, strict=True):
        far = r > max(6 * _robust(distance)[1] + np.median(distance), 1.0)
        turned = a > max(6 * _robust(angle)[1] + np.median(angle), 45.0)
        if far or turned:
            what = " and ".join(
                t
                for t, on in (
                    (f"lies {r:.2g} sizes away from the cohort", far),
                    (f"its long axis is {a:.0f} degrees off", turned),
                )
                if on
            )
            done = "alignment brings it to the others" if aligned else "write prepare.align=auto"
            out.append(Finding(i, "info" if aligned else "warning", "pose", what, done))
    return out


def _duplicates(ids: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The same content twice, or the same shape after a rigid motion (or in another vertex order)."""
    from scipy.spatial import cKDTree

    signature = np.array([f.get("signature") or [np.nan] * 24 for f in facts])
    with_size = np.nanmax(signature, axis=1, initial=0.0)
    ok = np.flatnonzero(np.isfinite(signature).all(1) & (with_size > 0))
    relative = signature[ok] / with_size[ok][:, None]
    pairs = cKDTree(relative).query_pairs(1e-5) if len(ok) else set()
    out = []
    for a, b in sorted((int(ok[a]), int(ok[b])) for a, b in pairs):
        i, j = ids[a], ids[b]
        if any(facts[a][key] != facts[b][key] for key in ("kind", "dimension", "points", "simplices")):
            continue
        if facts[a]["checksum"] == facts[b]["checksum"]:
            what = f"has exactly the content of {i}"
        elif abs(np.log(with_size[a] / with_size[b])) < 1e-5:
            what = f"is {i} moved (or in another vertex order): distances to the centroid agree to five digits"
        else:
            what = f"is {i} scaled by {with_size[b] / with_size[a]:.4g}: distances to the centroid agree in proportion"
        out.append(
            Finding(j, "warning", "duplicate_subject", what, f"if it is one subject twice, write dataset.exclude=[{j}]")
        )
    return out


def of_alignment(ids: Sequence[str], alignment: Alignment) -> list[Finding]:
    """Subjects that fit badly, and those that fit better as mirror images."""
    residual = np.array(alignment.residuals)
    known = np.isfinite(residual)
    if alignment.method == "none" or known.sum() < 3:
        return []
    out = []
    mirrored = np.array(alignment.mirrored)
    usual = float(np.median(residual[known & (residual > 0)])) if (known & (residual > 0)).any() else 0.0
    # far better as a mirror image; or, where shapes differ more than their sides do, unusual as it is and usual when mirrored
    unusual = (residual > 1.25 * usual) & (mirrored < 1.1 * usual) & (mirrored < 0.8 * residual)
    suspects = known & np.isfinite(mirrored) & ((mirrored < 0.6 * residual) | unusual)
    if suspects.sum() > 0.5 * (known.sum() - 1):
        # most others look mirrored: then it is the reference that is
        suspects = known & ~suspects
        why = "most of the cohort fits it better as its mirror image"
    else:
        why = ""
    for i in np.flatnonzero(suspects).tolist():
        what = why or f"fits the cohort better as its mirror image ({mirrored[i]:.3g} instead of {residual[i]:.3g})"
        out.append(
            Finding(
                ids[i],
                "warning",
                "mirror",
                what,
                f"if it is of the other side, write prepare.mirror=[{ids[i]}]; nothing is reflected unasked",
            )
        )
    positive = residual[known & (residual > 0)]
    if len(positive) >= 3:
        _, spread = _robust(np.log(positive))
        for n in np.flatnonzero(known & (residual > 0) & ~suspects).tolist():
            excess = float(np.log(residual[n]) - np.median(np.log(positive)))
            if excess > max(6 * spread, np.log(2.0)):
                what = f"aligns {np.exp(excess):.2g} times worse than the median ({residual[n]:.3g} mesh units)"
                out.append(
                    Finding(
                        ids[n],
                        "warning",
                        "misfit",
                        what,
                        "look at it: a wrong file, wrong landmarks, or a shape of another kind",
                    )
                )
    return out

"""What only the cohort can tell: sizes, poses, units, duplicates, mirror images, shapes that align badly.

Spreads are robust: with m the median and s = 1.4826 median |x - m|, a subject is an outlier when |x - m| > 6 s *and* the difference matters (the
second condition keeps a cohort of near-identical shapes from flagging noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shapeflow.errors import few
from shapeflow.prepare import units
from shapeflow.prepare.alignment import Alignment
from shapeflow.prepare.findings import Finding
from shapeflow.prepare.wording import listed, scaled


def of_cohort(ids: Sequence[str], facts: Sequence[Mapping[str, Any]], unit: str | None, aligned: bool) -> list[Finding]:
    """Findings about sizes, units, poses, kinds and duplicates, from the facts alone."""
    out = _kinds(ids, facts) if ids else []
    strange = {f.subject for f in out}
    alike = [(i, f) for i, f in zip(ids, facts, strict=True) if i not in strange]
    ids, facts = [i for i, _ in alike], [f for _, f in alike]
    out += _unit(facts, unit)
    if len(ids) < 2:
        return out
    return [*out, *_sizes(ids, facts, unit), *_poses(ids, facts, aligned), *_duplicates(ids, facts)]


def unit_of(facts: Sequence[Mapping[str, Any]], unit: str | None) -> tuple[float, str | None]:
    """(median size, unit: as the configuration says, else guessed from the size)."""
    sizes = [float(f["size"]) for f in facts if float(f.get("size") or 0.0) > 0]
    size = float(np.median(sizes)) if sizes else 0.0
    return size, unit or units.guess(size, all(f.get("whole_coordinates") for f in facts))


def unit_guesses(facts: Sequence[Mapping[str, Any]], unit: str | None) -> list[str]:
    """For every subject the unit that its size suggests, given that of the cohort; a column of the quality table, never acted upon."""
    usual = unit_of(facts, unit)[1]
    if usual is None or not facts:
        return [""] * len(facts)
    near = _unlike(_log_sizes(facts))
    return [units.beside(usual, n) if usual and (n := near.get(i)) else usual or "unit size" for i in range(len(facts))]


def _unit(facts: Sequence[Mapping[str, Any]], unit: str | None) -> list[Finding]:
    """What the unit may be, when nobody has said; whether the one that was said can be."""
    size, guessed = unit_of(facts, unit)
    if not size > 0:
        return []
    across = f"half of the subjects are more than {size:.3g} units across"
    if unit is not None:
        if units.plausible(size, unit):
            return []
        return [Finding("", "warning", "unit", f"{across}, which dataset.unit={unit} makes {size * units.METRES[unit]:.2g} m",
                        "write the dataset.unit that they are in; to convert the coordinates, prepare.scale=<factor>")]  # fmt: skip
    if guessed is None:
        what, remedy = "no common unit makes that the size of something scanned", "write dataset.unit=<unit>"
    elif guessed == "":
        what, remedy = (
            "perhaps scaled to unit size, perhaps metres",
            "if they have a unit write it, such as dataset.unit=m",
        )
    else:
        why = "from whole coordinates" if guessed == "pixel" else "from that size alone"
        what, remedy = (
            f"a guess {why} is {guessed}",
            f"if it is right write dataset.unit={guessed}, else the unit they are in",
        )
    return [
        Finding("", "info", "unit_guess", f"{across}: {what}", f"{remedy} (it names lengths, nothing is converted)")
    ]


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
            f"write {listed('dataset.exclude', [i])}, or export it again",
        )
        for i, k in zip(ids, kinds, strict=True)
        if k != usual
    ]


def _robust(x: np.ndarray) -> tuple[np.ndarray, float]:
    """(deviations from the median, robust spread)."""
    deviation = x - np.median(x)
    return deviation, float(1.4826 * np.median(np.abs(deviation)))


def _sizes(ids: Sequence[str], facts: Sequence[Mapping[str, Any]], unit: str | None) -> list[Finding]:
    logs = _log_sizes(facts)
    usual = unit_of(facts, unit)[1]
    out = []
    for n, near in _unlike(logs).items():
        i, times = ids[n], float(np.exp(logs[n] - np.median(logs)))
        text = f"{times:.3g} times as large as" if times > 1 else f"{1 / times:.3g} times smaller than"
        text = f"is {text} the median of the cohort"
        if near is not None:
            out.append(Finding(i, "warning", "unit", f"{text}; a factor of {near:.4g} looks like another unit, perhaps {units.beside(usual, near)}",
                               f"write {scaled(i, 1 / near)}"))  # fmt: skip
        else:
            out.append(
                Finding(
                    i,
                    "warning",
                    "size",
                    text,
                    f"look at it; write {listed('dataset.exclude', [i])}, or {scaled(i, None)}",
                )
            )
    return out or _two_units(ids, logs)


def _log_sizes(facts: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(n,) logarithms of the centroid sizes; the median's for a subject without one."""
    size = np.array([float(f.get("centroid_size") or 0.0) or np.nan for f in facts])
    if np.isnan(size).all():
        return np.zeros(len(facts))
    return np.log(np.where(np.isfinite(size), size, np.nanmedian(size)))


def _unlike(logs: np.ndarray) -> dict[int, float | None]:
    """Subjects of unusual size: index -> the ratio of units that their size looks like, or None."""
    deviation, spread = _robust(logs)
    far = np.flatnonzero(np.abs(deviation) > max(6 * spread, np.log(1.6))).tolist()
    return {n: units.ratio(float(np.exp(deviation[n])), min(0.35, 3 * spread + 0.1)) for n in far}


def _two_units(ids: Sequence[str], logs: np.ndarray) -> list[Finding]:
    """A cohort from two sources has no outlier but a gap: two groups of sizes, apart by the ratio of two units."""
    order = np.argsort(logs, kind="stable")
    gaps = np.diff(logs[order])
    if len(ids) < 4 or gaps.max() < np.log(2.0):
        return []
    cut = int(np.argmax(gaps)) + 1
    low, high = order[:cut], order[cut:]
    times = float(np.exp(np.median(logs[high]) - np.median(logs[low])))
    near = units.ratio(times, 0.35)
    if near is None or max(np.ptp(logs[low]), np.ptp(logs[high])) > gaps.max():
        return []
    smaller, factor = (low, near) if len(low) <= len(high) else (high, 1 / near)
    names = sorted(str(ids[i]) for i in smaller.tolist())
    return [Finding("", "warning", "unit", f"sizes fall into two groups, of {len(low)} and {len(high)} subjects, {times:.3g} times apart: perhaps two units "
                    f"(a factor of {near:.4g}). The smaller group: {few(names)}",
                    f"if so write {scaled(names[0], factor)} for each of them, or scale their files")]  # fmt: skip


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
            Finding(
                j,
                "warning",
                "duplicate_subject",
                what,
                f"if it is one subject twice, write {listed('dataset.exclude', [j])}",
            )
        )
    return out


def of_alignment(ids: Sequence[str], alignment: Alignment) -> list[Finding]:
    """Subjects that fit badly, and those that fit better as mirror images."""
    residual, mirrored = np.array(alignment.residuals), np.array(alignment.mirrored)
    known = np.isfinite(residual)
    if alignment.method == "none" or known.sum() < 3:
        return []
    # not the reference, which differs from itself by rounding at most
    fitted = known & (residual > 1e-9 * np.max(residual[known]))
    usual = float(np.median(residual[fitted])) if fitted.any() else 0.0
    # far better as a mirror image; or, where shapes differ more than their sides do, unusual as it is and usual when mirrored
    unusual = (residual > 1.25 * usual) & (mirrored < 1.1 * usual) & (mirrored < 0.8 * residual)
    suspects = known & np.isfinite(mirrored) & ((mirrored < 0.6 * residual) | unusual)
    # when most look mirrored it is the reference that is
    turned = bool(suspects.sum() > 0.5 * (known.sum() - 1))
    if turned:
        suspects = known & ~suspects
    found = [_mirror(ids[i], None if turned else (residual[i], mirrored[i])) for i in np.flatnonzero(suspects).tolist()]
    return [*found, *_misfits(ids, residual, fitted, fitted & ~suspects)]


def _mirror(subject: str, residuals: tuple[float, float] | None) -> Finding:
    """`residuals` as it is and mirrored; None for a reference that the others fit mirrored."""
    what = "most of the cohort fits it better as its mirror image"
    if residuals is not None:
        what = f"fits the cohort better as its mirror image ({residuals[1]:.3g} instead of {residuals[0]:.3g})"
    remedy = f"if it is of the other side, write {listed('prepare.mirror', [subject])}; nothing is reflected unasked"
    return Finding(subject, "warning", "mirror", what, remedy)


def _misfits(ids: Sequence[str], residual: np.ndarray, fitted: np.ndarray, judged: np.ndarray) -> list[Finding]:
    """Of those `judged`, the ones that align far worse than all that were fitted."""
    if fitted.sum() < 3:
        return []
    logs = np.log(residual[fitted])
    median, spread = float(np.median(logs)), _robust(logs)[1]
    out = []
    for n in np.flatnonzero(judged).tolist():
        excess = float(np.log(residual[n])) - median
        if excess > max(6 * spread, np.log(2.0)):
            what = f"aligns {np.exp(excess):.2g} times worse than the median ({residual[n]:.3g} mesh units)"
            remedy = "look at it: a wrong file, wrong landmarks, or a shape of another kind"
            out.append(Finding(ids[n], "warning", "misfit", what, remedy))
    return out

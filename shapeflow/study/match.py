"""A shard of pairs to rows and momenta."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shapeflow.errors import BackendError, ConfigError, ShapeflowError
from shapeflow.study.files import load_config, write_npz
from shapeflow.study.prepared import Subjects, facts_of
from shapeflow.study.rows import landmark_errors, shared_columns, surface_errors
from shapeflow.study.specs import matching_spec

log = logging.getLogger("shapeflow.study")


def match(
    config: str | Path,
    pairs: Sequence[Sequence[str]],
    prepared: str | Path,
    device: str,
    backend: str,
    rows: str | Path,
    momenta: str | Path,
    code: str = "",
) -> None:
    """A shard: its pairs as one batch; a row for each (a pair that fails says so in its row) and the momenta of those that did not."""
    import numpy as np
    import pandas as pd

    from shapeflow import keeping
    from shapeflow.tables import MATCHING, conform, write_parquet

    run, settings, folder = Path(config).parent.name, load_config(config), Path(prepared)
    names = sorted({name for pair in pairs for name in pair})
    prints = [(folder / "fingerprints" / f"{name}.txt").read_text(encoding="utf-8") for name in names]
    key = keeping.key_of(code, run, settings, [list(p) for p in pairs], prints, facts_of(folder)["size"])
    if code and keeping.take(key, [rows, momenta]):
        return
    spec = matching_spec(settings, folder, device, backend)
    shared = shared_columns(run, settings, folder)
    subjects = Subjects(folder)
    ready, made = [], []
    for source, target in pairs:
        try:
            for name in (source, target):
                subjects.shape(name)
            ready.append((source, target))
        except ShapeflowError as error:
            made.append(({"source": source, "target": target, "status": f"failed: {error}"}, None))
    log.info("%d pairs at sigma %g, %s", len(ready), spec.sigma, spec.kernel)
    made += _solve(ready, subjects, spec)
    frame = pd.DataFrame([{"distance": np.nan, **shared, **row} for row, _ in made])
    write_parquet(conform(frame, MATCHING, where=f"shard {Path(rows).stem}"), Path(rows))
    kept = [(row, p) for row, p in made if p is not None]
    arrays = {f"momenta_{i:05d}": p for i, (_, p) in enumerate(kept)}
    arrays |= {end: np.array([row[end] for row, _ in kept], dtype=str) for end in ("source", "target")}
    write_npz(momenta, arrays)
    if len(kept) == len(made):
        keeping.keep(key, [rows, momenta])


def _solve(pairs: Sequence[tuple[str, str]], subjects: Subjects, spec: Any) -> list[tuple[dict[str, Any], Any]]:
    """Rows and momenta of a batch. A batch that cannot be solved as one is cut in halves, down to the pair that is to blame."""
    from shapeflow.matching import match as match_batch
    from shapeflow.progress import progress

    if not pairs:
        return []
    sources, targets = [subjects.shape(s) for s, _ in pairs], [subjects.shape(t) for _, t in pairs]
    marks = [subjects.common_landmarks(s, t) for s, t in pairs]
    try:
        with progress(f"matching {len(pairs)} pairs", len(pairs)) as tell:
            result = match_batch(
                sources,
                targets,
                spec,
                source_landmarks=[m[0] for m in marks],
                target_landmarks=[m[1] for m in marks],
                progress=lambda done, _: tell(done),
            )
    except (ConfigError, BackendError):
        raise  # nothing of these pairs: no half would do better
    except (ShapeflowError, RuntimeError) as error:
        # RuntimeErrors are of torch's linear algebra: `match` sees to memory itself
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if len(pairs) == 1:
            log.error("%s to %s failed: %s", *pairs[0], reason, exc_info=not isinstance(error, ShapeflowError))
            return [({"source": pairs[0][0], "target": pairs[0][1], "status": f"failed: {reason}"}, None)]
        log.warning("a batch of %d pairs failed (%s); its halves are tried", len(pairs), reason)
        half = len(pairs) // 2
        return _solve(pairs[:half], subjects, spec) + _solve(pairs[half:], subjects, spec)
    done = []
    for i, (source, target) in enumerate(pairs):
        row = {
            **result.rows[i],
            "source": source,
            "target": target,
            **surface_errors(sources[i], result.deformed[i], targets[i]),
        }
        row |= landmark_errors(marks[i], result.carried[i])
        if row["status"] == "diverged":
            row["status"] = (
                "failed: diverged, no step lowers the energy by a finite amount; is the mesh or sigma in another unit?"
            )
        done.append((row, result.momenta[i] if row["evaluations"] else None))  # none where it was not even tried
    return done

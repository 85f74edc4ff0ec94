"""`report.html`: one file with its data, pictures, style and plotting library inside."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from shapeflow.errors import ShapeflowError
from shapeflow.figures import PALETTE, picture
from shapeflow.io.files import replacing
from shapeflow.prepare import Finding
from shapeflow.report.meshes import facts_table, findings_table
from shapeflow.report.payload import numbers, run_payload, vertices_for
from shapeflow.report.text import CRITERIA, MEANINGS, TITLES, UNITS, cell, duration, sentence
from shapeflow.report.view import RunView
from shapeflow.statistics import Choice, choose_run

_SWEEP_COLUMNS = (
    "run", "kernel", "sigma", "normalization", "settings", "pairs", "failures", "landmark_error_before", "landmark_error", "surface_mean_before",
    "surface_mean", "surface_p95", "atlas_landmark_error", "atlas_surface_mean", "jacobian_min", "generalisation", "stability",
    "knn_accuracy", "silhouette", "permanova_p",
    "classification_accuracy",
    "evaluations", "seconds",
)  # fmt: skip


def write_report(
    out_html: Path,
    *,
    study: Mapping,
    sweep: pd.DataFrame,
    runs: Sequence[RunView],
    quality: pd.DataFrame | None = None,
    findings: Sequence[Finding] = (),
    tables: Mapping[str, str] | None = None,
) -> Path:
    """Write the page.

    `study` says what the tables do not: name, dataset, title, device, versions, command, seconds, label, finished (a time, if it is to be
    shown; without one the same study gives the same bytes). `tables` are links relative to the page, by title.
    """
    runs = list(runs)
    if not runs and not len(sweep):
        raise ShapeflowError("a report needs at least one run: the study has none; check hydra.sweeper.params")
    labels = next((view.labels for view in runs if view.labels is not None and len(view.labels)), None)
    choice = _choice(sweep)
    runs.sort(key=lambda view: choice is not None and view.run != choice.run)  # what to look at first stands first
    limit = vertices_for(runs)
    environment = Environment(
        loader=PackageLoader("shapeflow.report"),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    html = environment.get_template("report.html.j2").render(
        study=dict(study),
        title=study.get("title") or f"Shape study of {study.get('dataset', 'a cohort')}",
        sentence=sentence(study, sweep, labels),
        cards=_cards(study, sweep, runs),
        choice=choice,
        quality=_meshes(quality, findings) if quality is not None and len(quality) else None,
        sweep=_table(sweep, _SWEEP_COLUMNS),
        units=UNITS,
        runs=[_run_context(view) for view in runs],
        tables=dict(tables or {}),
        meanings={TITLES.get(c, c): MEANINGS[c] for c in _SWEEP_COLUMNS if c in MEANINGS and c in sweep},
        css=_asset("report.css"),
        js=_asset("report.js"),
        plotly=_plotly(),
        data=_json({
            "palette": PALETTE,
            "choice": choice.run if choice else None,
            "label": study.get("label"),
            "criteria": _criteria(sweep),
            "runs": [run_payload(view, limit) for view in runs],
        }),
    )  # fmt: skip
    out_html = Path(out_html)
    with replacing(out_html) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out_html


def _choice(sweep: pd.DataFrame) -> Choice | None:
    try:
        return choose_run(sweep)
    except ShapeflowError:  # nothing was measured that runs could be compared by: the page then marks none
        return None


def _cards(study: Mapping, sweep: pd.DataFrame, runs: Sequence[RunView]) -> list[tuple[str, str]]:
    def total(column: str) -> float:
        return float(sweep[column].fillna(0).sum()) if column in sweep and len(sweep) else 0.0

    subjects = int(study.get("subjects") or (sweep["subjects"].max() if len(sweep) else 0))
    cards = [(f"{subjects}", "subjects"), (f"{len(sweep) or len(runs)}", "runs")]
    cards += [(f"{total('pairs'):,.0f}", "matchings")] if total("pairs") else []
    cards.append((f"{total('failures'):.0f}", "failures"))
    cards.append((duration(float(study.get("seconds") or total("seconds"))), "computing time"))
    if study.get("device"):
        cards.append((str(study["device"]), "device"))
    return [(value, name) for value, name in cards if value]


def _table(frame: pd.DataFrame, columns: Sequence[str] | None = None) -> dict:
    """Header and rows of a table; columns that are empty throughout are left out."""
    names = [c for c in (columns or frame.columns) if c in frame and frame[c].notna().any()]
    head = [
        {"key": c, "title": TITLES.get(str(c), str(c).replace("_", " ")), "unit": UNITS.get(str(c), "")} for c in names
    ]
    numeric = [bool(pd.api.types.is_numeric_dtype(frame[c])) for c in names]
    return {"head": head, "numeric": numeric, "rows": frame[names].astype(object).values.tolist()}


def _meshes(quality: pd.DataFrame, findings: Sequence[Finding]) -> dict:
    facts, nothing, alike = facts_table(quality)
    found = findings_table(findings)
    return {**_table(facts), "clean": nothing, "alike": alike, "findings": _table(found) if len(found) else None}


def _run_context(view: RunView) -> dict:
    still = picture(view.template) if view.template is not None else None
    return {
        "run": view.run,
        "title": view.title,
        "still": f"data:image/png;base64,{base64.b64encode(still).decode('ascii')}" if still else None,
        "vertices": len(view.template.points) if view.template is not None else 0,
        "findings": [
            {"title": f.title, "text": f.text, "table": _table(f.table) if f.table is not None else None}
            for f in view.findings
        ],
        "links": dict(view.links),
    }


def _criteria(sweep: pd.DataFrame) -> list[dict]:
    """Small multiples: a criterion against σ, a line for each kernel and normalization."""
    panels = []
    for column, better, beside in CRITERIA:
        if column not in sweep or not sweep[column].notna().any():
            continue
        lines = []
        distinct = [c for c in ("normalization", "settings") if c in sweep and sweep[c].nunique(dropna=False) > 1]
        for names, part in sweep.groupby(["kernel", *distinct], sort=True, dropna=False):
            part = part.sort_values("sigma", kind="stable")
            lines.append(
                {
                    "name": ", ".join(str(name) for name in names if not pd.isna(name)),
                    "x": numbers(part["sigma"].to_numpy(dtype=float)),
                    "y": numbers(part[column].to_numpy(dtype=float, na_value=float("nan"))),
                    "runs": part["run"].astype(str).tolist(),
                }
            )
        reference = (
            float(sweep[beside].astype("float64").mean())
            if beside and beside in sweep and sweep[beside].notna().any()
            else None
        )
        panels.append({
            "key": column, "title": TITLES.get(column, column), "unit": UNITS.get(column, ""), "better": better, "lines": lines,
            "reference": reference, "reference_title": TITLES.get(beside, beside) if beside else None,
        })  # fmt: skip
    return panels


def _json(data: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))

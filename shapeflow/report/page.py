"""`report.html`: one file with its data, pictures, style and plotting library inside."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from shapeflow.errors import ShapeflowError
from shapeflow.figures import PALETTE, picture
from shapeflow.io.files import replacing
from shapeflow.prepare import Finding
from shapeflow.report.meshes import POWERS, facts_table, findings_table
from shapeflow.report.payload import run_payload, vertices_for
from shapeflow.report.sweep import UNITS, choice, comparison, criteria, meanings, run_titles, title
from shapeflow.report.text import cell, duration, provenance, sentence, subjects, written
from shapeflow.report.view import RunView
from shapeflow.tables import LENGTH


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

    `study` says what the tables do not: name, dataset, title, unit (of the meshes), device, versions, command, seconds, label, finished (a
    time, if it is to be shown; without one the same study gives the same bytes). `tables` are links relative to the page, by title.
    """
    runs = list(runs)
    if not runs and not len(sweep):
        raise ShapeflowError("a report needs at least one run: the study has none; check hydra.sweeper.params")
    labels = next((view.labels for view in runs if view.labels is not None and len(view.labels)), None)
    best = choice(sweep) if len(sweep) > 1 else None
    runs.sort(key=lambda view: best is not None and view.run != best.run)  # what to look at first stands first
    unit = str(study.get("unit") or LENGTH)
    runs = [_in_unit(view, unit) for view in runs]
    units = {name: unit if of == LENGTH else of for name, of in UNITS.items()}
    seconds = float(study.get("seconds") or (sweep["seconds"].fillna(0).sum() if len(sweep) else 0.0))
    limit = vertices_for(runs)
    environment = Environment(
        loader=PackageLoader("shapeflow.report"),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        study=dict(study),
        title=study.get("title") or f"Shape study of {study.get('dataset', 'a cohort')}",
        sentence=sentence(study, sweep, labels),
        provenance=provenance(study, seconds),
        cards=_cards(study, sweep, runs, seconds),
        choice={"run": best.run, "title": run_titles(sweep)[best.run], "reason": best.reason.replace(LENGTH, unit)} if best else None,
        quality=_meshes(quality, findings, unit) if quality is not None and len(quality) else None,
        sweep=_sweep(sweep, units, best.run if best else None) if len(sweep) else None,
        unit=unit,
        runs=[_run_context(view) for view in runs],
        tables=dict(tables or {}),
        meanings=meanings(sweep),
        css=_asset("report.css"),
        js=_asset("report.js"),
        plotly=_plotly(),
        data=_json({
            "palette": PALETTE,
            "choice": best.run if best else None,
            "label": study.get("label"),
            "unit": unit,
            "criteria": [{**panel, "unit": unit if panel["unit"] == LENGTH else panel["unit"]} for panel in criteria(sweep)] if len(sweep) else [],
            "runs": [run_payload(view, limit) for view in runs],
        }),
    )  # fmt: skip
    out_html = Path(out_html)
    with replacing(out_html) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out_html


def _cards(study: Mapping, sweep: pd.DataFrame, runs: Sequence[RunView], seconds: float) -> list[tuple[str, str]]:
    def total(column: str) -> int:
        return int(sweep[column].fillna(0).sum()) if column in sweep and len(sweep) else 0

    cards = [(cell(subjects(study, sweep)), "subjects"), (f"{len(sweep) or len(runs)}", "runs")]
    cards += [(cell(total("pairs")), "matchings")] if total("pairs") else []
    cards += [
        (cell(total("failures")), "failures"),
        (duration(seconds), "computing time"),
        (str(study.get("device") or ""), "device"),
    ]
    return [(value, name) for value, name in cards if value]


def _table(
    frame: pd.DataFrame, units: Mapping[str, str] | None = None, marked: Mapping[int, str] | None = None
) -> dict:
    """A table for the template: heads, and rows of (text, value to sort by); `marked` are rows with a class. Empty columns are left out."""
    names = [c for c in frame if frame[c].notna().any()]
    numeric = [bool(pd.api.types.is_numeric_dtype(frame[c])) for c in names]
    rows = [
        [(written(c, v), "" if pd.isna(v) else v) for c, v in zip(names, row, strict=True)]
        for row in frame[names].astype(object).values.tolist()
    ]
    return {
        "head": [{"title": title(c), "unit": (units or {}).get(str(c), "")} for c in names],
        "numeric": numeric,
        "rows": rows,
        "classes": [(marked or {}).get(i, "") for i in range(len(rows))],
    }


def _sweep(sweep: pd.DataFrame, units: Mapping[str, str], best: str | None) -> dict:
    frame, alike = comparison(sweep, units)
    titles = run_titles(sweep)
    return {
        **_table(frame, units, {i: "best" for i, run in enumerate(frame["run"]) if run == best}),
        "titles": [titles[str(run)] for run in frame["run"]],
        "alike": alike,
    }


def _in_unit(view: RunView, unit: str) -> RunView:
    """Lengths of maps and sentences in the unit that the data set names."""
    return replace(
        view,
        findings=tuple(replace(f, text=f.text.replace(LENGTH, unit)) for f in view.findings),
        fields=tuple(replace(f, unit=f.unit.replace(LENGTH, unit)) for f in view.fields),
    )


def _meshes(quality: pd.DataFrame, findings: Sequence[Finding], unit: str) -> dict:
    facts, shared = facts_table(quality)
    found = findings_table(findings)
    powers = {1: unit, 2: f"{unit}²", 3: f"{unit}³"}
    units = {name: powers[power] for name, power in POWERS.items()}
    return {**_table(facts, units), "shared": shared, "findings": _table(found) if len(found) else None}


def _run_context(view: RunView) -> dict:
    still = picture(view.template) if view.template is not None else None
    return {
        "run": view.run,
        "title": view.title,
        "still": f"data:image/png;base64,{base64.b64encode(still).decode('ascii')}" if still else None,
        "vertices": len(view.template.points) if view.template is not None else 0,
        "findings": [
            {
                "title": f.title,
                "text": f.text,
                "table": _table(f.table, marked=dict.fromkeys(f.marked, "found")) if f.table is not None else None,
            }
            for f in view.findings
        ],
        "links": dict(view.links),
    }


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

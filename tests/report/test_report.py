"""The page: what is on it, that it needs nothing else, and that hostile names stay names."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapeflow.demo import DemoSpec
from shapeflow.errors import ShapeflowError
from shapeflow.figures import picture, view
from shapeflow.io import read_shape
from shapeflow.prepare import Finding as MeshFinding
from shapeflow.report import Field, Finding, Mode, RunView, load_run, report_study, write_report
from shapeflow.report.load import _convergence
from shapeflow.report.meshes import facts_table, findings_table
from shapeflow.report.payload import MESH_BUDGET, for_display, run_payload, vertices_for
from shapeflow.report.sweep import comparison, criteria, run_titles
from shapeflow.report.text import cell, p_value, percent, written
from shapeflow.shape import Shape
from shapeflow.statistics import Options, analyse_run
from shapeflow.tables import atlas_table, matching_table, sweep_table, write_csv, write_table


def _sibling(name: str):
    """A helper module beside this file, whatever else is called so elsewhere."""
    spec = importlib.util.spec_from_file_location(
        f"shapeflow_tests_report_{name}", Path(__file__).with_name(f"{name}.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


studies, browsers = _sibling("studies"), _sibling("browser")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """results/demo/{runs,prepared,studies/default} with its page."""
    root = tmp_path_factory.mktemp("demo")
    runs = studies.write_study(root, DemoSpec(n_subjects=6, n_points=80))
    for run in runs[:2]:  # the others stay without: both kinds are shown
        analyse_run(run, options=Options(permutations=99, classifier_permutations=9, draws=3))
    folder = root / "studies" / "default"
    matching, atlas = matching_table(runs), atlas_table(runs)
    write_table(matching, folder / "tables" / "matching")
    write_csv(sweep_table(matching, atlas), folder / "tables" / "sweep.csv")
    write_csv(
        pd.DataFrame({"subject": ["subject01"], "vertices": [80], "note": ["3 duplicate faces removed"]}),
        root / "prepared" / "p0" / "quality.csv",
    )
    found = MeshFinding("subject01", "info", "duplicate", "1 triangle has the corners of another", "dropped")
    write_csv(pd.DataFrame([vars(found)]), root / "prepared" / "p0" / "findings.csv")
    manifest = {
        "study": "default",
        "dataset": "demo",
        "runs": [{"run": r.name, "prepared": "p0", "raw": None} for r in runs],
    }
    (folder / "study.json").write_text(json.dumps(manifest))
    report_study(folder, title="Beans & <friends>")
    return folder


class Page(HTMLParser):
    """Addresses that a browser would fetch, links, and text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched, self.links, self.words, self.skip = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "a":
            self.links.append(attrs["href"])
        else:
            self.fetched += [attrs[k] for k in ("src", "href", "data", "poster") if attrs.get(k)]
        self.skip += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.skip:
            self.words.append(data)


def test_page_says_what_the_study_found(study):
    page = Page((study / "report.html").read_text())
    words = re.sub(r"\s+", " ", " ".join(page.words))
    assert (
        "6 shapes of the data set demo (group: 3 case and 3 control) were compared in 4 runs over kernels cauchy and gaussian"
        in words
    )
    assert "widths σ = 0.2 and 0.4" in words and "120 matchings" in words and "none failed" in words
    assert "Computed with shapeflow 0.1 on the CPU (torch kernels) in 57.6 s of computing time" in words
    assert "Beans & <friends>" in words
    assert "3 duplicate faces removed" in words
    assert "is the run to look at first: landmark error" in words
    for link in page.links:
        if not link.startswith("#"):
            assert (study / link).is_file(), link


def test_findings_are_told_with_their_limits(study):
    words = re.sub(r"\s+", " ", " ".join(Page((study / "report.html").read_text()).words))
    assert "PERMANOVA, momenta" in words and "tests are significant at a false discovery rate of 5 %" in words
    assert "some tests cannot give a p below" in words, "six subjects cannot give a small p, and the page must say so"
    assert "group: 6 of 6 subjects" in words and "fitted without the subject that is predicted" in words
    assert "(generalisation)" in words and "No subject stands out" in words


def test_failed_matchings_are_named_and_lengths_have_the_data_sets_unit(study, tmp_path):
    run = sorted((study.parent.parent / "runs").iterdir())[0]
    shutil.copytree(run, tmp_path / "d" / "runs" / run.name)
    copy = tmp_path / "d" / "runs" / run.name
    rows = pd.read_parquet(copy / "matching.parquet")
    rows.loc[0, ["status", "distance"]] = ["failed: diverged", np.nan]
    rows.to_parquet(copy / "matching.parquet")
    (copy / "config.yaml").write_text("dataset: {unit: mm}\n")
    folder = tmp_path / "d" / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({"study": "s", "dataset": "d", "runs": [{"run": run.name}]}))
    words = re.sub(r"\s+", " ", " ".join(Page(report_study(folder).read_text(encoding="utf-8")).words))
    assert (
        "subject01 → subject02 diverged" in words
        and "29 of 30 matchings converged and 1 failed" in load_run(copy).matrix_note
    )
    assert "compared in one run with kernel cauchy, width σ = 0.2 mm" in words and "mesh units" not in words
    assert "The run in numbers" in words and "run to look at first" not in words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0080081, "0.00801"),
        (1234.5, "1234"),
        (999.7, "1000"),
        (24452, "24\u202f452"),
        (-3.2441, "\u22123.24"),
        (2.1e-7, "2.1e\u22127"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (np.int64(89700), "89\u202f700"),
        (np.nan, ""),
    ],
)
def test_cells_are_short(value, text):
    assert cell(value) == text


def test_numbers_of_a_column_have_as_many_digits():
    assert [written("surface_mean", v) for v in (0.00138, 0.0014, 7.2, 54.0)] == ["0.00138", "0.00140", "7.20", "54"]
    assert [written("p", v) for v in (0.029, 0.1, 1.0)] == ["0.029", "0.10", "1"]


def test_small_p_values_and_shares_are_not_zero():
    assert [p_value(v) for v in (0.02857, 0.0004, 1.74e-6)] == ["0.029", "0.0004", "1.7e\u22126"]
    assert [percent(v) for v in (1.0, 0.57228, -0.0518, -1e-9)] == [
        f"{v}\u202f%" for v in ("100", "57.2", "\u22125.2", "0")
    ]


def test_the_comparison_holds_what_tells_runs_apart(study):
    runs = sorted((study.parent.parent / "runs").iterdir())
    sweep = sweep_table(matching_table(runs), atlas_table(runs))
    frame, alike = comparison(sweep)
    assert (
        "landmark_error" in frame
        and "pairs" not in frame
        and {"normalization none", "pairs 30", "failures 0"} <= set(alike)
    )
    assert list(run_titles(sweep).values())[0] == "cauchy · σ = 0.2"
    panels = criteria(sweep)
    assert all(len(panel["lines"]) == 2 and len(panel["lines"][0]["x"]) == 2 for panel in panels) and len(panels) > 6
    assert criteria(sweep[sweep["sigma"] == 0.2]) == [], "one width makes no curve"


def test_page_is_one_file_within_its_budget(study):
    text = (study / "report.html").read_text()
    assert all(address.startswith("data:") for address in Page(text).fetched)
    assert (study / "report.html").stat().st_size < 15e6
    assert "default-src 'none'" in text


def test_same_study_same_bytes(study):
    before = (study / "report.html").read_bytes()
    report_study(study, title="Beans & <friends>")
    assert (study / "report.html").read_bytes() == before


def test_names_cannot_become_markup(tmp_path):
    name = "</script><script>alert(1)</script>"
    rows = pd.DataFrame({
        "source": [name, "b"], "target": ["b", name], "run": "r", "kernel": "k", "sigma": 1.0, "normalization": "none", "distance": [1.0, 2.0],
        "status": "converged", "source_group": "<img src=x onerror=alert(2)>", "target_group": "g",
    })  # fmt: skip
    (tmp_path / "r").mkdir()
    rows.to_parquet(tmp_path / "r" / "matching.parquet")
    matching = matching_table([tmp_path / "r"])
    finding = Finding("f", "<b>bold</b>", pd.DataFrame({"who": [name]}))
    view = load_run(tmp_path / "r")
    view = RunView(**{**{f: getattr(view, f) for f in view.__dataclass_fields__}, "findings": (finding,)})
    text = write_report(
        tmp_path / "report.html", study={"dataset": name}, sweep=sweep_table(matching), runs=[view]
    ).read_text()
    assert "<script>alert" not in text and "<img src=x" not in text and "<b>bold" not in text
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1)
    assert json.loads(block)["runs"][0]["matrix"]["names"] == [name, "b"]


def test_what_is_missing_is_left_out(tmp_path):
    """A run with nothing but a name, and one whose matchings all failed, still make a page."""
    rows = pd.DataFrame({
        "source": list("aabbcc"), "target": list("bcacab"), "run": "r", "kernel": "k", "sigma": 1.0, "normalization": "none",
        "distance": np.nan, "status": "failed: folded",
    })  # fmt: skip
    (tmp_path / "r").mkdir()
    rows.to_parquet(tmp_path / "r" / "matching.parquet")
    matching = matching_table([tmp_path / "r"])
    page = write_report(
        tmp_path / "report.html",
        study={},
        sweep=sweep_table(matching),
        runs=[load_run(tmp_path / "r"), RunView("bare")],
    )
    assert "6 of them failed" in page.read_text()
    with pytest.raises(ShapeflowError, match="at least one run"):
        write_report(tmp_path / "none.html", study={}, sweep=matching.iloc[:0], runs=[])


def test_quality_table_shows_what_tells_meshes_apart_and_names_the_rest():
    frame = pd.DataFrame(
        {
            "subject": ["a", "b", "c"],
            "kind": ["surfaces", "surfaces", "surfaces"],
            "nan_points": [0, 0, np.nan],  # the last could not be read
            "duplicate_simplices": [0, 3, np.nan],
            "watertight": [False, True, None],
            "volume": [np.nan, 0.0, np.nan],
            "components": [56, 56, 56],
            "fixed_components": [55, 55, 55],
            "fixed_merge": [0, 0, 0],
            "findings": ["", "warning: x", "error: y"],
        }
    )
    facts, shared = facts_table(frame)
    assert list(facts) == ["subject", "duplicate_simplices", "watertight"]
    assert shared == [
        "All meshes alike: kind surfaces, components 56, fixed components 55.",
        "In no mesh: nan points, volume.",
        "Not needed: merge.",
    ]
    assert facts.values.tolist() == [["a", 0, False], ["b", 3, True], ["c", pd.NA, pd.NA]]


def test_subjects_that_an_atlas_has_not_reached_are_named():
    history = pd.DataFrame({"objective": [2.0, 1.5, 1.2]})
    atlas = pd.DataFrame({"subject": ["a", "b", "c"], "status": "max_iter", "iterations": 2, "surface_mean_before": [5.0, 5.0, np.nan]})  # fmt: skip
    told = _convergence(history, atlas.assign(surface_mean=[0.5, 6.0, np.nan]))
    assert "It has not reached 1 of 3 subjects, whose surface is no closer than before: b." in told
    assert "not reached" not in _convergence(history, atlas.assign(surface_mean=0.5))


def test_findings_of_the_meshes_come_worst_first_one_row_a_check(study):
    found = [
        MeshFinding("a", "info", "duplicate", "3 triangles have the corners of another", "dropped"),
        MeshFinding("b", "info", "duplicate", "1 triangle has the corners of another", "dropped"),
        MeshFinding("c", "error", "unreadable", "c.stl holds no triangles", "write dataset.exclude=[c]"),
        MeshFinding("", "info", "frames", "subjects lie in frames of their own", "alignment brings them into one"),
    ]
    rows = findings_table(found).values.tolist()
    assert [r[0] for r in rows] == ["error", "info", "info"] and rows[0][1] == "c"
    assert rows[1][1] == "a and 1 other: b" and rows[1][2].startswith("a: 3 triangles") and rows[2][1] == "the cohort"
    text = " ".join(Page((study / "report.html").read_text(encoding="utf-8")).words)
    assert "1 triangle has the corners of another" in text  # of the study's own findings.csv


def test_an_unusable_manifest_says_so(study, tmp_path):
    (tmp_path / "study.json").write_text('{"study": "x"')
    with pytest.raises(ShapeflowError, match=r"study\.json does not name the study's runs"):
        report_study(tmp_path)
    folder = tmp_path / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text('{"study": "s", "dataset": "d", "runs": [{"run": "gone"}]}')
    with pytest.raises(ShapeflowError, match="gone"):
        report_study(folder)


def _sphere(n: int) -> Shape:
    from shapeflow.demo.templates import chart

    return Shape(*chart("closed", n))


def test_displayed_mesh_is_a_part_of_the_template():
    sphere = _sphere(3000)
    kept, cells = for_display(sphere, 500)
    assert 300 < len(kept) <= 600 and cells.max() == len(kept) - 1
    assert np.bincount(cells.ravel(), minlength=len(kept)).min() > 0
    shown = Shape(sphere.points[kept], cells)
    assert shown.measures().sum() == pytest.approx(sphere.measures().sum(), rel=0.05)
    assert for_display(sphere, 3000)[1] is sphere.simplices


def test_payload_decodes_to_the_modes_within_its_resolution():
    import base64

    shape = _sphere(60)
    mode = Mode("first", (-1.0, 0.0, 1.0), (shape.points * 0.5, shape.points, shape.points * 1.5))
    view = RunView("r", template=shape, modes=(mode,), fields=(Field("f", shape.points[:, 0]),))
    scene = run_payload(view, 100)["scene"]
    for text, expected in zip(scene["modes"][0]["frames"], mode.frames, strict=True):
        q = np.frombuffer(base64.b64decode(text), "<u2").reshape(-1, 3) / 65535.0 * scene["scale"] + np.array(
            scene["low"]
        )
        np.testing.assert_allclose(q, expected, atol=3.1 / 65535)
    np.testing.assert_allclose(
        np.frombuffer(base64.b64decode(scene["fields"][0]["values"]), "<f4"), shape.points[:, 0], atol=1e-7
    )
    views = [RunView(str(i), template=_sphere(60), modes=(mode,) * 6) for i in range(40)]
    size = len(json.dumps([run_payload(v, vertices_for(views)) for v in views]))
    assert size < 1.2 * MESH_BUDGET
    with pytest.raises(ShapeflowError, match="one a step"):
        Mode("bad", (0.0,), (shape.points,))


def test_distances_survive_their_packing_and_a_thousand_subjects_fit():
    import base64

    from shapeflow.tables import DistanceMatrix

    rng = np.random.default_rng(0)
    d = rng.uniform(1, 2, size=(1000, 1000))
    d = d + d.T
    np.fill_diagonal(d, 0.0)
    d[3, 4] = d[4, 3] = np.nan
    small = DistanceMatrix(tuple("abcdefgh"), d[:8, :8], np.zeros((8, 8)))
    matrix = run_payload(RunView("r", matrix=small), 100)["matrix"]
    q = np.frombuffer(base64.b64decode(matrix["values"]), "<u2").reshape(8, 8)
    assert (q == 65535).sum() == 2 and q[3, 4] == 65535
    np.testing.assert_allclose(np.where(q == 65535, np.nan, q / 65534 * matrix["largest"]), d[:8, :8], atol=4e-5)
    large = DistanceMatrix(tuple(f"s{i}" for i in range(1000)), d, np.zeros_like(d))
    assert len(json.dumps(run_payload(RunView("r", matrix=large), 100))) < 3e6


def test_picture_draws_the_shape(study):
    import io

    from matplotlib.image import imread

    run = next((study.parent.parent / "runs").iterdir())
    shape = read_shape(run / "atlas" / "template.vtk")
    image = imread(io.BytesIO(picture(shape)))
    covered = (image[:, :, 3] > 0.5).mean()
    assert 0.2 < covered < 0.9
    assert picture(shape) == picture(shape)
    for other in (Shape(shape.points[:, :2], np.stack([np.arange(79), np.arange(1, 80)], 1)), Shape(shape.points)):
        assert (imread(io.BytesIO(picture(other)))[:, :, 3] > 0.5).any()
    across, up, towards = np.ptp(view(shape.points), axis=0)
    assert across > up > towards


# ---- in a browser -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if browsers.CHROMIUM is None or browsers.DRIVER is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    opened = browsers.Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


OVERLAPS = """((a, b) => {
  const boxes = (s) => [...document.querySelectorAll(s)].map((e) => e.getBoundingClientRect()), [first, second] = [boxes(a), boxes(b)];
  if (!first.length || !second.length) return "nothing to compare";
  return first.some((p) => second.some((q) => p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1));
})"""


def _drawn(browser) -> float:
    """Share of the 3-D panel's pixels that are not its background, from a picture of the screen."""
    import io

    from matplotlib.image import imread

    browser.run("document.getElementById('scene').scrollIntoView({block: 'center', behavior: 'instant'})")
    box = browser.run(
        "const r = document.getElementById('scene').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    )
    image = imread(io.BytesIO(browser.screenshot(Path(browser.folder) / "shot.png")))[:, :, :3]
    x, y, w, h = (int(v) for v in box)
    part = image[max(y, 0) + 40 : y + h, max(x, 0) : x + w]  # below the plot's own buttons
    return float((part.min(axis=2) < 0.93).mean())


def test_page_lives_in_a_browser(study, browser):
    browser.open(study / "report.html")
    browser.wait("document.body.dataset.ready === 'true'")
    browser.wait(
        "document.querySelector('#scene canvas') && document.querySelectorAll('#multiples .main-svg').length > 3"
    )
    browser.run("if (document.getElementById('spin').ariaPressed === 'true') document.getElementById('spin').click()")
    ink = 0.0
    for _ in range(20):  # software rendering takes its time
        if (ink := _drawn(browser)) > 0.05:
            break
    assert 0.05 < ink < 0.8, "the template is not drawn"

    # every control answers: statistics first, in a run that has them
    def change(control: str, value: str) -> None:
        browser.run(
            f"const s = document.getElementById('{control}'); s.value = '{value}'; s.dispatchEvent(new Event('change'))"
        )

    names = browser.run(
        "return JSON.parse(document.getElementById('data').textContent).runs.map((r) => [r.run, r.scene.modes.length])"
    )
    analysed = next(i for i, (_, modes) in enumerate(names) if modes)
    change("run-select", str(analysed))
    change("field-select", "0")
    assert browser.run("return document.getElementById('scene').data[0].intensity.length") == 80
    change("field-select", "-1")
    assert not any(browser.run("return document.getElementById('scene').data[0].intensity")), "colours of a map stay"
    before = browser.run("return Array.from(document.getElementById('scene').data[0].x)")
    change("mode-select", "1")
    browser.run("const s = document.getElementById('step'); s.value = '2'; s.dispatchEvent(new Event('input'))")
    after = browser.run("return Array.from(document.getElementById('scene').data[0].x)")
    assert np.abs(np.subtract(before, after)).max() > 1e-3, "the mode does not move the template"
    assert browser.run("return document.getElementById('step-value').textContent").startswith("+2.0 standard")
    browser.run(
        "document.getElementById('scene').scrollIntoView({block: 'center', behavior: 'instant'}); document.getElementById('play').click()"
    )
    browser.wait("Math.abs(Number(document.getElementById('step').value)) < 1.9")
    browser.run("document.getElementById('play').click()")
    change("embedding-select", "1")
    assert "component 1" in browser.run("return document.getElementById('embedding').layout.xaxis.title.text")
    assert not browser.run(f"return {OVERLAPS}('#matrix .ytick text, #matrix .xtick text', '#matrix .shapelayer path')")
    plain = next(i for i, (_, modes) in enumerate(names) if not modes)
    change("run-select", str(plain))
    assert browser.run("return document.getElementById('play').hidden && document.getElementById('mode-box').hidden")
    change("label-select", "covariate")
    assert browser.run("return document.getElementById('embedding').data[0].marker.showscale")
    change("order-select", "label")
    shown = browser.run("const t = document.getElementById('matrix').data[0]; return [t.x, t.y, t.z]")
    held = load_run(study.parent.parent / "runs" / names[plain][0]).matrix.restricted(
        [n.replace("&amp;", "&") for n in shown[0]]
    )
    np.testing.assert_allclose(np.array(shown[2], dtype=float), held.values, atol=2e-5 * held.values.max())
    browser.run("document.querySelector('th.n button').click()")
    assert browser.run("return document.querySelectorAll('article.run.shown').length") == 1
    assert browser.run("return document.querySelector('article.run.shown').dataset.run") == names[plain][0]
    errors = [entry for entry in browser.console() if entry["level"] == "SEVERE"]
    assert not errors
    asked = browser.requests(study / "report.html")
    assert asked, "the page itself was not recorded: the check below would see nothing"
    away = [
        u for u in asked if not u.startswith(("data:", "blob:")) and u != (study / "report.html").resolve().as_uri()
    ]
    assert not away


def test_page_fits_a_phone(study, browser):
    browser.command("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    try:
        browser.open(study / "report.html")
        browser.wait("document.body.dataset.ready === 'true'")
        assert browser.run("return document.documentElement.scrollWidth") <= 390
        browser.wait("document.querySelector('#sweep .scroll.more')")  # the table goes on, and says so
        browser.run("document.querySelector('#sweep .scroll').scrollLeft = 1e5")
        browser.wait("!document.querySelector('#sweep .scroll.more')")
        assert not browser.run("return document.querySelector('#sweep .scroll.below')")
        browser.run("document.querySelector('#sweep .scroll').style.maxHeight = '5rem'")  # as a long table's is
        browser.wait("document.querySelector('#sweep .scroll.below')")
        browser.run("document.querySelector('#sweep .scroll').scrollTop = 1e5")
        browser.wait("!document.querySelector('#sweep .scroll.below')")
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")


STILLS = "return [...document.querySelectorAll('img.still')].filter((i) => i.getBoundingClientRect().width > 100 && i.complete && i.naturalWidth).length"


def test_without_scripts_or_on_paper_the_still_pictures_show(study, browser):
    browser.open(study / "report.html")
    browser.wait("document.body.dataset.ready === 'true'")
    assert browser.run(STILLS) == 0
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.run(STILLS) == 4
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")
    browser.run("document.documentElement.classList.remove('js')")
    assert browser.run(STILLS) == 4


def test_paper_has_every_runs_charts_within_its_width(study, browser):
    browser.open(study / "report.html")
    browser.wait("document.querySelectorAll('#multiples .main-svg').length > 3")
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        browser.wait("document.querySelectorAll('.prints figure .main-svg').length")
        charts = browser.run(
            "return [...document.querySelectorAll('article.run')].map((a) => a.querySelectorAll('figure').length)"
        )
        assert sorted(charts) == [3, 3, 4, 4]  # distances, embeddings (two where there is an analysis), convergence
        browser.run(
            "document.body.style.width = '690px'"
        )  # A4 between its margins; printing tells no plot to change its size
        wide = "[...document.querySelectorAll('.main-svg')].filter((s) => s.getBoundingClientRect().right > 690).length"
        shown = "[...document.querySelectorAll('.main-svg')].filter((s) => s.getBoundingClientRect().width > 60).length"
        assert browser.run(f"return [{wide}, {shown} > 20]") == [0, True]
        assert not browser.run(
            f"return {OVERLAPS}('.multiple:nth-child(odd) .main-svg', '.multiple:nth-child(even) .main-svg')"
        )
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")
    browser.wait("!document.querySelector('.prints figure')")
    assert not [entry for entry in browser.console() if entry["level"] == "SEVERE"]


def test_a_browser_without_webgl_shows_the_still_picture(study, browser):
    source = (
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) { return kind.includes('webgl') ? null : get.call(this, kind, ...rest); };"
    )
    script = browser.command("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"]
    try:
        browser.open(study / "report.html")
        browser.wait("document.body.dataset.ready === 'true'")
        assert browser.run(STILLS) == 1 and browser.run("return document.getElementById('spin').hidden")
        assert browser.run("return document.querySelectorAll('#matrix .main-svg').length")
        assert not [entry for entry in browser.console() if entry["level"] == "SEVERE"]
    finally:
        browser.command("Page.removeScriptToEvaluateOnNewDocument", identifier=script)

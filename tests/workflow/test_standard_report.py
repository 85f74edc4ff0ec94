"""`snakemake --report`: Snakemake's own page of a finished study, with our categories and captions."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from shapeflow.resources import resource
from tests.report.browser import CHROMIUM, DRIVER, Browser

from .running import SWEPT, snakemake

pytestmark = pytest.mark.slow
PAGE = [word for word in SWEPT if not word.startswith("report.")]  # with our own page
CAPTIONS = {"Quality": ("quality.csv", "quality"), "Sweep": ("sweep.csv", "sweep"), "Report": ("report.html", "report")}


@pytest.fixture(scope="module")
def page(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "study"
    shutil.copytree(study, folder)
    snakemake(folder, PAGE)
    snakemake(folder, PAGE, "--report", "standard.html")
    return folder / "standard.html"


def caption(name: str) -> str:
    """Its first sentence."""
    return re.split(r"\.\s", (resource("workflow") / "report" / f"{name}.rst").read_text(encoding="utf-8"))[0]


def test_categories_captions_and_labels(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert caption("workflow") in text

    def embedded(name: str) -> dict:
        (found,) = re.findall(rf"^\s*var {name} = (\{{.*\}});$", text, re.M)
        return json.loads(found)

    categories, results = embedded("categories"), embedded("results")
    assert set(categories) == set(CAPTIONS)
    for category, (file, source) in CAPTIONS.items():
        ((path,),) = categories[category].values()
        assert Path(path).name == file and caption(source) in results[path]["caption"].replace("\n", " ")
        assert results[path]["labels"]["dataset"] == "demo"


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
def test_it_opens_offline_and_shows_them(page: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "browser")
    try:
        for category, (_, source) in CAPTIONS.items():
            browser.call("POST", "/url", {"url": "about:blank"})
            browser.open(page)
            browser.wait("document.body.innerText.includes('Sweep')")
            browser.run(f"[...document.querySelectorAll('a')].find(a => a.innerText.trim() == '{category}').click()")
            browser.wait("document.querySelector('table a')")
            browser.run("[...document.querySelectorAll('table a')].at(-1).click()")
            browser.wait(f"document.body.innerText.replace(/\\s+/g, ' ').includes({json.dumps(caption(source))})")
        assert not [line for line in browser.console() if line["level"] == "SEVERE"]
        assert not [
            address for address in browser.requests(page) if not address.startswith(("file:", "data:", "blob:"))
        ]
    finally:
        browser.close()

"""The documentation holds together: links lead somewhere, commands compose, Python parses. What the commands do is tested elsewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from shapeflow.config.expand import expand
from shapeflow.resources import resource

ROOT = resource("config").parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="an installed wheel carries no docs/")


def prose(text: str) -> str:
    """Without what stands in fences and backticks, where brackets are code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them: lower case, punctuation dropped, blanks to hyphens."""
    heads = re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), flags=re.M)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", h.lower())) for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose(page.read_text(encoding="utf-8")))
    for target in (a or b for a, b in targets):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), (
                f"{page.name} links to {target}: no such heading"
            )


def commands() -> list[str]:
    """What calls snakemake or shapeflow with keys, in code blocks and in sentences; continued lines joined. An ellipsis makes no command."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^(?:    )?((?:snakemake|shapeflow) .*)$", text, flags=re.M)
        lines += re.findall(r"`((?:snakemake|shapeflow) [^`\n]+)`", text)
        found += [re.sub(r"\s+#.*| {3,}\S.*", "", line).strip() for line in lines]
    return sorted({c for c in found if "=" in c and "…" not in c and "..." not in c and "hydra/sweeper=" not in c})


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of meshes that commands name, in a place of their own."""
    for name in ("meshes", "mouse_mandible_dp1tyb", "osteosarcoma_cells_2d", "face_correspondence_ict"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHAPEFLOW_DATA", str(tmp_path))


def overrides(command: str) -> list[str]:
    """The keys of a command, as its program would receive them; /data/meshes stands for a folder that exists."""
    command = command.replace("/data/meshes", "meshes")
    words = shlex.split(command)
    words = words[: words.index("--")] if "--" in words else words
    if words[0] == "snakemake":
        given = next((w.removeprefix("overrides=") for w in words if w.startswith("overrides=")), "")
        return shlex.split(given, posix=False)
    return [w for w in words[1:] if "=" in w and not w.startswith("-")]


def test_there_are_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", commands())
def test_commands_compose(command: str, tmp_path: Path) -> None:
    folder = None
    if "experiment=mine" in command:
        folder = tmp_path / "conf"
        (folder / "experiment").mkdir(parents=True)
        (folder / "experiment" / "mine.yaml").write_text(experiment(), encoding="utf-8")
    assert expand(overrides(command), folder and str(folder)).runs


def experiment() -> str:
    """The tutorial's conf/experiment/mine.yaml."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return re.findall(r"^```yaml\n(.*?)^```", text, flags=re.S | re.M)[0]


def test_the_tutorials_file_says_what_its_command_says(tmp_path: Path) -> None:
    """So that going from one to the other computes nothing again."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(experiment(), encoding="utf-8")
    line = next(c for c in commands() if c.startswith("shapeflow run") and "prepare.scale" in c)
    by_words = {r.id for r in expand(overrides(line)).runs}
    assert by_words == {r.id for r in expand(["experiment=mine"], str(tmp_path)).runs} and len(by_words) == 4


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_parses(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M):
        compile(block, str(page), "exec")


def named(page: Path) -> set[str]:
    """What a page writes in backticks outside its code blocks."""
    return set(
        re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M))
    )


@pytest.fixture(scope="module")
def identifiers() -> set[str]:
    """Every word of the sources: functions, columns, keys, files."""
    folders = ("shapeflow", "kernels", "config", "workflow", "tests", "hydra_plugins")
    kinds = (".py", ".cpp", ".cu", ".h", ".yaml", ".smk")
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in kinds and p != Path(__file__)]
    return set(
        re.findall(r"\w+", " ".join([*(p.read_text(encoding="utf-8") for p in files), *(p.stem for p in files)]))
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_are_those_of_the_code(page: Path, identifiers: set[str]) -> None:
    """A column, a key or a function that is renamed or dropped is renamed or dropped here."""
    unknown = {word for word in named(page) if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", word) and word not in identifiers}
    assert not unknown, f"{page.name} names {', '.join(sorted(unknown))}: nothing is called so"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_keys_are_configuration_keys(page: Path) -> None:
    keys = set(
        re.findall(r"^\| `([\w.]+)`", (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"), flags=re.M)
    )
    groups = {key.split(".")[0] for key in keys if "." in key}
    written = {
        word.split("=")[0].split(":")[0] for word in named(page) if re.match(r"[a-z_]+(\.[a-z_]+)+(=|: |$)", word)
    }
    unknown = {key for key in written if key.split(".")[0] in groups and key not in keys and not is_file(key)}
    assert not unknown, f"{page.name} names {', '.join(sorted(unknown))}, which is no key of the configuration"


def is_file(word: str) -> bool:
    return word.endswith((".py", ".csv", ".md", ".npz", ".parquet", ".vtk", ".html"))

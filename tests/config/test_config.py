"""The configuration: one grid for both sides, ids by content, and refusals that say what to write."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shapeflow.cli import main
from shapeflow.config.expand import expand, expand_jobs
from shapeflow.config.identity import identify
from shapeflow.config.plan import asked
from shapeflow.config.validate import schema, schema_keys
from shapeflow.config.words import split_words
from shapeflow.errors import ConfigError, ShapeflowError
from shapeflow.resources import resource


def ids(*overrides: str) -> list[str]:
    return [run.id for run in expand(overrides).runs]


def test_the_default_is_two_widths_and_two_kernels_on_the_demo() -> None:
    study = expand()
    assert study.name == "default"
    assert {run.dataset for run in study.runs} == {"demo"}
    assert {(run.config["kernel"]["name"], run.config["sigma"]) for run in study.runs} == {
        (kernel, sigma) for kernel in ("gaussian", "cauchy") for sigma in (0.2, 0.4)
    }


def test_command_line_keys_replace_those_of_the_grid() -> None:
    study = expand(["sigma=1,2,3", "kernel=energy"])
    assert [(r.config["kernel"]["name"], r.config["sigma"]) for r in study.runs] == [
        ("energy", s) for s in (1.0, 2.0, 3.0)
    ]


@pytest.mark.parametrize(
    ("text", "sigmas"),
    [("sigma=range(1,4)", [1, 2, 3]), ("sigma=choice(2,5)", [2, 5]), ("sigma=5", [5]), ("sigma=1e-1,2.5", [0.1, 2.5])],
)
def test_hydras_grammar(text: str, sigmas: list[float]) -> None:
    assert [r.config["sigma"] for r in expand([text, "kernel=gaussian"]).runs] == sigmas


def test_glob_over_a_group() -> None:
    kernels = {r.config["kernel"]["name"] for r in expand(["kernel=glob(*)", "sigma=1"]).runs}
    assert kernels == {p.stem for p in (resource("config") / "kernel").glob("*.yaml")}


def test_equal_numbers_have_one_id() -> None:
    assert ids("sigma=0.10", "kernel=gaussian") == ids("sigma=0.1", "kernel=gaussian")
    assert ids("sigma=5", "kernel=gaussian") == ids("sigma=5.0", "kernel=gaussian")
    assert ids("sigma=0.1,0.10", "kernel=gaussian") == ids("sigma=0.1", "kernel=gaussian")


def test_a_percentage_is_a_relative_width() -> None:
    (percent,), (spelled,) = (
        expand(["sigma=10%", "kernel=gaussian"]).runs,
        expand(["sigma=0.1", "sigma_units=relative", "kernel=gaussian"]).runs,
    )
    assert percent.id == spelled.id
    assert percent.id.startswith("gaussian-s0.1r-sinkhorn-")
    assert percent.id != ids("sigma=0.1", "kernel=gaussian")[0]


def test_auto_is_a_run_for_each_width_it_tries() -> None:
    tried = expand(["sigma=auto", "kernel=gaussian"]).runs
    assert [(r.config["sigma"], r.config["sigma_units"]) for r in tried] == [
        (s, "relative") for s in (0.05, 0.1, 0.2, 0.4)
    ]
    # they are the runs of the same sweep written out, from whichever side it is asked for
    assert [r.id for r in tried] == ids("sigma=5%,10%,20%,40%", "kernel=gaussian")
    assert [r.id for r in tried] == [r.id for r in expand_jobs([["sigma=auto", "kernel=gaussian"]]).runs]
    assert len(expand(["sigma=auto,1", "sigma_auto=[0.3,1]"]).runs) == 6
    with pytest.raises(ConfigError, match=r"sigma_auto=\[0.1,0.2\]"):
        expand(["sigma=auto", "sigma_auto=[]"])


def test_an_initial_template_that_is_not_there_is_refused_before_any_job() -> None:
    from shapeflow.config.plan import make

    with pytest.raises(ConfigError, match="atlas.template=mean: write closest, average, a subject \\(subject01"):
        make(["atlas.template=mean"])
    make(["atlas.template=average", "atlas.template_points=60"])


@pytest.mark.parametrize(
    "free",
    [
        "study=other",
        "device=cpu",
        "backend=torch",
        "report.title=Hello",
        "report.enabled=false",
        "match.threads=2",
        "results=elsewhere",
        "sigma_auto=[0.5]",
    ],
)
def test_keys_that_change_no_result_change_no_id(free: str) -> None:
    assert ids(free) == ids()


@pytest.mark.parametrize(
    "bound",
    [
        "attachment.gamma=0.5",
        "solver.steps=3",
        "normalization=none",
        "prepare.n_points=50",
        "dataset.seed=3",
        "match.subjects=4",
    ],
)
def test_keys_that_change_results_change_every_id(bound: str) -> None:
    assert not set(ids(bound)) & set(ids())


def test_one_preparation_for_all_runs_and_another_for_other_meshes() -> None:
    prepared = {run.prepare_id for run in expand(["sigma=1,2", "kernel=gaussian,cauchy,energy"]).runs}
    assert len(prepared) == 1
    assert prepared != {run.prepare_id for run in expand(["prepare.n_points=50"]).runs}


def test_listed_runs_are_no_product() -> None:
    runs = expand(["hydra.sweeper.runs=['kernel=gaussian sigma=1','kernel=cauchy sigma=2']"]).runs
    assert [(r.config["kernel"]["name"], r.config["sigma"]) for r in runs] == [("gaussian", 1.0), ("cauchy", 2.0)]
    shipped = expand(["experiment=normalizations"]).runs
    assert [(r.config["normalization"]["name"], r.config["sigma"]) for r in shipped] == [
        ("none", 0.05), ("none", 0.1), ("one_step", 0.1), ("sinkhorn", 0.1)
    ]  # fmt: skip


def test_jobs_of_a_sweeper_are_the_runs_of_the_grid() -> None:
    """Hydra's own sweeper, and expand(): the same overrides give the same runs in the same order."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from hydra_plugins.shapeflow_plugins.sweeper import GridSweeper

    sweeper = GridSweeper(None, {"kernel": "gaussian,cauchy", "sigma": "0.2,0.4"})
    command_line = ["sigma=range(1,3)", "solver.steps=2"]
    parsed = OverridesParser.create().parse_overrides([*sweeper._parse_config(), *command_line])
    (batch,) = sweeper.split_arguments(parsed, None)
    assert [r.id for r in expand_jobs(batch).runs] == ids(*command_line)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sigmaa=1"], ["'sigmaa'", "did you mean 'sigma'"]),
        (["match.shardsize=3"], ["match.shard_size"]),
        (["+foo=1"], ["'foo'", "knows"]),
        (["+prepare.verts=4"], ["'prepare.verts'", "n_points"]),
        (["sigma=-1"], ["sigma=-1", "above 0"]),
        (["sigma=0"], ["sigma=0", "above 0"]),
        (["sigma=abc"], ["sigma=abc", "a number"]),
        (["sigma="], ["sigma", "a number"]),
        (["sigma=[]"], ["sigma", "a number"]),
        (["hydra.sweeper.params.sigma=''"], ["sigma", "empty", "at least one value"]),
        (["experiment=width"], ["experiment 'width'", "did you mean 'widths'", "--config-dir"]),
        (["kernel=gausian"], ["gausian", "did you mean 'gaussian'"]),
        (["dataset=folder"], ["dataset.path", "write dataset.path="]),
        (["dataset=folder", "dataset.path=/no/such/folder"], ["/no/such/folder", "does not exist", "write dataset.path="]),
        (["dataset=folder", "dataset.path=${oc.env:SHAPEFLOW_NOWHERE}"], ["SHAPEFLOW_NOWHERE", "export"]),
        (["sigma=5", "sigma_units=relative"], ["5 times the cohort's size", "sigma=0.1"]),
        (["sigma=[1"], ["cannot read the override 'sigma=[1'"]),
        (["dataset=folder", "dataset.path=/data/têtes"], ["dataset.path='/data/têtes'", "quotes"]),
        (["dataset=folder", "dataset.path=/data/it's"], ['dataset.path="/data/it\'s"', "quotes"]),
        (["device=cpu,cuda"], ["device cannot be swept"]),
        (["match.enabled=false", "atlas.enabled=false"], ["do nothing"]),
        (["match.pairs=list"], ["match.list"]),
        (["normalization=sinkhorn_unrolled", "normalization.iterations=0"], ["normalization.iterations=5"]),
        (["atlas.model=bayesian", "attachment=sinkhorn"], ["squared norm", "attachment=varifold"]),
        (["atlas.momenta_std=0"], ["atlas.momenta_std=0", "above 0"]),
        (["match.subjects=1"], ["match.subjects=1", "2 or more"]),
        (["attachment.widths=[]"], ["attachment.widths", "at least 1"]),
        (["solver.dtype=float16"], ["float32", "float64"]),
        (["study=a/b"], ["study=a/b"]),
    ],
)  # fmt: skip
def test_refusals_say_what_to_write(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(overrides)
    for word in words:
        assert word in str(caught.value)


def test_no_target_can_be_smuggled_in() -> None:
    """A configuration is data: nothing in it is called."""
    with pytest.raises(ConfigError, match="unknown key"):
        expand(["+kernel._target_=os.system"])


@pytest.mark.parametrize(
    "words",
    [
        ["+hydra.callbacks.mine._target_=shutil.rmtree", "+hydra.callbacks.mine.path=/tmp/none"],
        ["hydra.launcher._target_=os.getcwd"],
        ["hydra.sweeper._target_=hydra.main"],
        ["+hydra.job_logging.handlers.mine.class=logging.os.system"],
    ],
)
def test_nothing_that_hydra_calls_can_be_chosen(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"would call .*: a configuration is data"):
        expand(words)
    for command in (["-m", *words], words):  # refused before Hydra makes anything of it
        with pytest.raises(SystemExit, match="would call"):
            main(command)


def test_nor_in_a_file_of_somebodys_experiments(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "theirs.yaml").write_text(
        "# @package _global_\nhydra:\n  job_logging:\n    formatters:\n      theirs:\n        (): os.getcwd\n"
    )
    with pytest.raises(ConfigError, match=r"hydra.job_logging.formatters.theirs.\(\) would call os.getcwd"):
        expand(["experiment=theirs"], tmp_path)


def test_options_may_stand_between_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    main(["expand", "sigma=1", "--json", "kernel=gaussian"])
    assert [run["config"]["sigma"] for run in json.loads(capsys.readouterr().out)] == [1.0]


def test_what_an_installed_plugin_registers_may_be_chosen() -> None:
    for words in (["hydra/sweeper=basic"], ["hydra/launcher=basic"], ["hydra/job_logging=disabled"]):
        assert expand(words).runs


def test_every_key_of_every_group_is_in_the_schema_with_a_meaning() -> None:
    known = set(schema_keys())
    for path in sorted(resource("config").rglob("*.yaml")):
        if path.parent.name in ("experiment", "config"):
            continue
        data = yaml.safe_load(path.read_text()) or {}
        data = data.get(path.parent.name, data)
        for key in set(data) - {"defaults"}:
            assert f"{path.parent.name}.{key}" in known, f"{path} has {key}, which the schema does not know"

    def walk(node: dict, where: str) -> None:
        for name, child in node.get("properties", {}).items():
            assert child.get("description"), f"{where}{name} has no description in the schema"
            walk(child, f"{where}{name}.")

    walk(schema(), "")
    walk(schema()["$defs"]["generated"], "dataset.")
    walk(schema()["$defs"]["folder"], "dataset.")


def test_the_schema_knows_the_options_of_the_package() -> None:
    from shapeflow.demo import DemoSpec
    from shapeflow.prepare import Dataset, Prepare

    known = set(schema_keys())
    for prefix, spec in (("prepare", Prepare), ("dataset", Dataset), ("dataset", DemoSpec)):
        for field in dataclasses.fields(spec):
            assert f"{prefix}.{field.name}" in known


def test_every_dataset_and_experiment_composes(data_root: Path) -> None:
    for group in ("dataset", "experiment"):
        for path in sorted((resource("config") / group).glob("*.yaml")):
            if path.stem != "folder":
                assert expand([f"{group}={path.stem}" if group == "dataset" else f"experiment={path.stem}"]).runs


def test_every_attachment_becomes_a_matching(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lengths in fractions of the cohort's size arrive in mesh units; numbers without unit stay as they are."""
    from shapeflow.attachment import ATTACHMENTS
    from shapeflow.study import specs

    monkeypatch.setattr(specs, "cohort_size", lambda folder: 10.0)
    names = sorted(path.stem for path in (resource("config") / "attachment").glob("*.yaml"))
    assert names == sorted(ATTACHMENTS)
    for name in names:
        more = {
            "sinkhorn": ["attachment.reach=0.2", "attachment.normal_length=0.05"],
            "oriented_varifold": ["attachment.kappa=0.5"],
        }
        run = expand([f"attachment={name}", "kernel=gaussian", "sigma=1", *more.get(name, [])]).runs[0]
        spec = specs.matching_spec(run.config, tmp_path, "cpu", "auto")
        assert spec.attachment == name
        assert spec.attachment_widths == pytest.approx([10 * w for w in run.config["attachment"]["widths"]])
        lengths = (2.0, 0.5) if name == "sinkhorn" else (None, None)
        assert (spec.attachment_reach, spec.attachment_normal_length) == pytest.approx(lengths)
        assert spec.attachment_kappa == (0.5 if name == "oriented_varifold" else 1.0)


def test_an_experiment_changes_the_grid(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /kernel: cauchy\nstudy: mine\nhydra:\n  sweeper:\n    params:\n      kernel: energy\n      sigma: 3,4\n"
    )
    study = expand(["experiment=mine"], config_dir=tmp_path)
    assert study.name == "mine"
    assert [(r.config["kernel"]["name"], r.config["sigma"]) for r in study.runs] == [("energy", 3.0), ("energy", 4.0)]


def test_a_config_dir_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config_dir"):
        expand([], config_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=1  b=2,3", ["a=1", "b=2,3"]),
        ("a=[1, 2] b='x y'", ["a=[1, 2]", "b='x y'"]),
        ("a={b: 1, c: 2}", ["a={b: 1, c: 2}"]),
        ("", []),
    ],
)
def test_words_keep_brackets_and_quotes(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize("text", ["a=[1", "a='x"])
def test_words_that_do_not_close(text: str) -> None:
    with pytest.raises(ConfigError, match="not closed"):
        split_words(text)


def test_a_quote_that_snakemake_takes_off_the_end_is_put_back() -> None:
    """`--config overrides="a=1 results='my results'"` reaches the workflow without its last quote."""
    from snakemake.cli import parse_config

    text = "dataset.path=\"/a/b c\" dataset.landmarks='{id} marks.csv'"
    words, _ = asked(parse_config([f"overrides={text}"]))
    assert words == ['dataset.path="/a/b c"', "dataset.landmarks='{id} marks.csv'"]


def test_identity_is_a_function_of_the_content() -> None:
    run = expand(["sigma=1", "kernel=gaussian"]).runs[0]
    shuffled = json.loads(json.dumps({k: run.config[k] for k in reversed(list(run.config))}))
    assert (
        identify(
            {**shuffled, "match": {**shuffled["match"], "threads": 7}, "atlas": {**shuffled["atlas"], "threads": 3}}
        ).id
        == run.id
    )


def test_the_command_line_refuses_in_one_sentence() -> None:
    for arguments in (["-m", "sigma=-1"], ["validate", "sigmaa=1"], ["sigma=1,2"], ["frobnicate"]):
        done = subprocess.run([sys.executable, "-m", "shapeflow.cli", *arguments], capture_output=True, text=True)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr + done.stdout
        assert done.stderr.startswith("shapeflow: ")


def test_errors_are_values_that_a_user_can_catch() -> None:
    assert issubclass(ConfigError, ShapeflowError) and issubclass(ShapeflowError, ValueError)


def test_the_page_of_keys_is_the_schemas() -> None:
    """docs/configuration.md is what `shapeflow keys` prints; regenerate it with `shapeflow keys > docs/configuration.md`."""
    page = resource("config").parent / "docs" / "configuration.md"
    if not page.is_file():
        pytest.skip("an installed wheel carries no docs/")
    from shapeflow.config.document import markdown

    assert page.read_text(encoding="utf-8") == markdown()

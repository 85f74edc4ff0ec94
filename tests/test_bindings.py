"""docs/bindings.md: its snippets, as they stand, in the interpreters that are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csr_matrix

import shapeflow
from shapeflow import mat

ROOT = Path(shapeflow.__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bindings.md"
X, B = np.array([[0, 0], [0.1, 0.2], [0.5, 0.4]]), np.array([[1.0], [2], [3]])


def snippet(language):
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture(scope="module")
def python():
    """What the page's Python snippet leaves behind."""
    names = {}
    exec(compile(snippet("python"), str(PAGE), "exec"), names)
    return names


def run(command, folder, **environment):
    """The interpreter's output; `python` in its PATH is this one."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    found = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # The link is not beside its environment's libraries.
    sites = os.pathsep.join([found, *(p for p in sys.path if p.endswith("site-packages"))])
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PATH": path, "PYTHONPATH": sites} | environment,
    )


def numbers(text):
    return [float(word) for word in re.findall(r"-?\d+\.\d+(?:e[+-]?\d+)?", text)]


def test_python(python):
    s = ((python["x"][:, None] - python["y"]) ** 2).sum(-1) / 0.09
    np.testing.assert_allclose(python["v"], np.exp(-s) @ python["b"], rtol=1e-12)
    np.testing.assert_allclose(python["l"], np.log(np.exp(-s).mean(1)), rtol=1e-10)
    assert abs(python["deformed"][:, 0]).max() == pytest.approx(1.3, abs=0.05)


def test_r(python, tmp_path):
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed (Debian: r-base-core, r-cran-reticulate)")
    probe = run(["Rscript", "-e", "reticulate::r_to_py(matrix(1.5))"], tmp_path, RETICULATE_PYTHON=sys.executable)
    if probe.returncode:
        pytest.skip(f"reticulate cannot use this Python: {probe.stderr.strip().splitlines()[-2:]}")
    (tmp_path / "snippet.R").write_text(snippet("r"), encoding="utf-8")
    shutil.rmtree(tmp_path / "bin")
    done = run(["Rscript", "snippet.R"], tmp_path, RETICULATE_PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    *v, widest = numbers(done.stdout)
    np.testing.assert_allclose(v, shapeflow.kernel_product(X, X, B, sigma=0.3)[:, 0], rtol=1e-8)
    assert widest == pytest.approx(abs(python["deformed"][:, 0]).max(), abs=1e-3)


def test_octave(python, tmp_path):
    if shutil.which("octave-cli") is None:
        pytest.skip("Octave is not installed (Debian: octave)")
    (tmp_path / "snippet.m").write_text(snippet("octave"), encoding="utf-8")
    done = run(["octave-cli", "--no-gui", "--norc", "snippet.m"], tmp_path)
    assert done.returncode == 0, done.stderr
    *v, widest = numbers(done.stdout)
    np.testing.assert_allclose(v, shapeflow.kernel_product(X, X, B, sigma=0.3)[:, 0], rtol=1e-8)
    assert widest == pytest.approx(abs(python["deformed"][:, 0]).max(), abs=1e-5)


def call(folder, function, **arguments):
    savemat(folder / "in.mat", arguments)
    mat.main([function, str(folder / "in.mat"), str(folder / "out.mat")])
    return loadmat(folder / "out.mat")


def test_mat_files_of_a_batch(tmp_path):
    sigma, offsets = [0.3, 0.7], [0, 1, 3]
    out = call(tmp_path, "kernel_product_fused", a=B, x=X, y=X, b=B, sigma=sigma, rows=offsets, kernel="cauchy")
    v, g = shapeflow.kernel_product_fused(B, X, X, B, "cauchy", sigma, rows=offsets)
    np.testing.assert_array_equal(out["v"], v)
    np.testing.assert_array_equal(out["g"], g)
    out = call(tmp_path, "kernel_logsumexp", x=X, y=X, h=B[:, 0], sigma=0.3)
    np.testing.assert_array_equal(out["l"][:, 0], shapeflow.kernel_logsumexp(X, X, B[:, 0], 0.3))


@pytest.mark.parametrize(
    "function, arguments, said",
    [
        ("kernel_product", {"x": X, "y": X, "b": B, "sigma": -1.0}, "positive"),
        ("kernel_product", {"x": X, "y": X, "b": B, "width": 1.0}, "width"),
        ("kernel_product", {"x": X, "y": X, "b": B, "sigma": "0.3"}, "`sigma` must be a number.*received '0.3'"),
        ("kernel_product", {"x": X, "y": X, "b": B, "sigma": [0.3, 0.7]}, "`sigma` must be one number; .*`rows`"),
        (
            "kernel_product",
            {"x": X, "y": X, "b": B, "sigma": 0.3, "kernel": np.array(["x"], object)},
            "`kernel` is a cell",
        ),
        ("kernel_product", {"x": csr_matrix(X), "y": X, "b": B, "sigma": 0.3}, "`x` is sparse"),
        ("match", {"source": X, "sigma": 1.0}, "`target`"),
        (
            "match",
            {"source": X, "source_simplices": [[0, 1], [1, 2]], "target": X, "sigma": 1.0},
            "index 0; .*begin at one",
        ),
        ("match", {"source": X, "target": X, "width": 1.0}, "no option width"),
    ],
)
def test_mat_refusals_say_what_is_wrong(function, arguments, said, tmp_path):
    with pytest.raises(SystemExit, match=said):
        call(tmp_path, function, **arguments)
    assert not (tmp_path / "out.mat").exists()


@pytest.mark.parametrize(
    "content", [b"# Created by Octave 7.3.0\n# name: x\n# type: scalar\n3\n", b"\x89HDF\r\n\x1a\n" + bytes(600), b""]
)
def test_a_file_saved_without_v7_is_told_how_to_save_it(content, tmp_path):
    """Octave's `save` writes text unless told otherwise, MATLAB's -v7.3 HDF5."""
    (tmp_path / "in.mat").write_bytes(content)
    with pytest.raises(SystemExit, match='save with -v7, as in save."-v7"'):
        mat.main(["kernel_product", str(tmp_path / "in.mat"), str(tmp_path / "out.mat")])

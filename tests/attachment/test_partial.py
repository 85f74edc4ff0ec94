"""Open and partial surfaces: real meshes cut in two, faces with their boundary, matched under every attachment; and all of it on a CUDA device."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shapeflow.attachment import compare
from shapeflow.batch import ShapeBatch
from shapeflow.io import read_shape
from shapeflow.matching import MatchingSpec, match
from shapeflow.ops.bound import Kernel
from shapeflow.prepare.decimate import decimate
from shapeflow.shape import Shape
from tests.shapes import ellipsoid, open_patch, sphere

NAMES = ["measure", "current", "varifold", "oriented_varifold", "sinkhorn"]


def part(shape: Shape, keep: np.ndarray) -> Shape:
    """The simplices whose centres are kept, without the vertices that nothing uses any more."""
    simplices = shape.simplices[keep]
    used, place = np.unique(simplices, return_inverse=True)
    return Shape(shape.points[used], place.reshape(simplices.shape))


def rim(shape: Shape) -> np.ndarray:
    """Vertices on the boundary."""
    edges = np.sort(shape.simplices[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    pairs, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(pairs[count == 1])


def forces(name: str, source: Shape, target: Shape, width: float, reach: float | None = None) -> np.ndarray:
    """|∂A/∂x| at every vertex, per area of it: free of the sampling."""
    sources, targets = ShapeBatch.of([source]), ShapeBatch.of([target])
    kernel = Kernel("gaussian", torch.full((1,), width, dtype=torch.float64), "native")
    attachment = compare(name, kernel, sources, targets, reach=reach)
    points = sources.points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(attachment(points).sum(), points)
    return gradient.norm(dim=1).numpy() / source.masses()


@pytest.fixture(scope="module")
def mandibles(data_root):
    return [decimate(read_shape(data_root / "mandible_pair" / f"{n}_1000.vtk"), 300)[0] for n in ("src", "tgt")]


@pytest.mark.parametrize("name", NAMES)
def test_half_a_mandible_against_the_whole(mandibles, name):
    """The cut edge is pulled about as hard as the rest, where half meets whole and where whole meets half."""
    source, target = mandibles
    long = int(np.ptp(source.points, axis=0).argmax())
    halves = [part(s, s.points[s.simplices].mean(1)[:, long] < s.points[:, long].mean()) for s in mandibles]
    reach = 1.0 if name == "sinkhorn" else None
    edge = forces(name, halves[0], target, 0.7, reach)
    assert np.isfinite(edge).all() and len(rim(halves[0])) > 5
    assert edge[rim(halves[0])].max() < 3 * np.quantile(edge, 0.99)
    assert np.isfinite(forces(name, source, halves[1], 0.7, reach)).all()


@pytest.mark.parametrize("name", NAMES)
def test_half_a_mandible_is_matched_to_its_half(mandibles, name):
    long = int(np.ptp(mandibles[0].points, axis=0).argmax())
    middle = np.median(mandibles[0].points[:, long])
    source, target = (part(s, s.points[s.simplices].mean(1)[:, long] < middle) for s in mandibles)
    spec = MatchingSpec(
        sigma=1.0, attachment=name, attachment_widths=(0.7,), attachment_reach=1.0, gamma=0.01, max_iter=6, steps=4
    )
    result = match([source], [target], spec)
    row = result.rows[0]
    assert row["objective"] < 0.5 * result.history[0][0] and row["jacobian_min"] > 0.2


@pytest.mark.parametrize("name", NAMES)
def test_a_face_is_open(data_root, name):
    folder = data_root / "face_correspondence_ict"
    files = sorted(folder.glob("*.obj.gz")) if folder.is_dir() else []
    if len(files) < 2:
        pytest.skip("the faces are not in SHAPEFLOW_DATA")
    skins = []
    for file in files[:2]:
        whole = read_shape(file)
        skins.append(decimate(part(whole, (whole.simplices < 9409).all(1)), 400)[0])
    source, target = skins
    force = forces(name, source, target, 2.0, 3.0 if name == "sinkhorn" else None)
    edge = rim(source)
    assert np.isfinite(force).all() and len(edge) > 20
    assert force[edge].max() < 3 * np.quantile(force, 0.99)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_on_a_cuda_device(name, dtype):
    """Values and gradients are those of the CPU, in a batch of different sizes and widths."""
    pairs = [sphere(1), ellipsoid(), open_patch()], [ellipsoid(), sphere(2), sphere(1)]
    out = []
    for device in ("cpu", "cuda"):
        source, target = (ShapeBatch.of(s, dtype, device) for s in pairs)
        widths = torch.tensor([0.4, 0.6, 0.5], dtype=dtype, device=device)
        attachment = compare(name, Kernel("gaussian", widths, "native"), source, target, reach=0.8, normal_length=0.2)
        points = source.points.clone().requires_grad_()
        value = attachment(points)
        (gradient,) = torch.autograd.grad(value.sum(), points)
        out.append((value.detach().cpu(), gradient.cpu(), attachment.reference().cpu()))
    # what is left when three terms cancel is counted in the attachment's own unit
    tolerance = 1e-6 if dtype == torch.float32 or name == "sinkhorn" else 1e-11
    unit = float(out[0][2].max())
    torch.testing.assert_close(out[1][0], out[0][0], rtol=10 * tolerance, atol=tolerance * unit)
    torch.testing.assert_close(out[1][1], out[0][1], rtol=1e3 * tolerance, atol=10 * tolerance * unit)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("name", ["oriented_varifold", "sinkhorn"])
def test_a_matching_on_a_cuda_device(name):
    """Through recorded evaluations, to the objective that a CPU reaches."""
    spec = MatchingSpec(
        sigma=0.6, attachment=name, attachment_widths=(0.4,), steps=4, gamma=1e-2, max_iter=30, device="cpu"
    )
    ends = []
    for device in ("cpu", "cuda"):
        ends.append(match([sphere(2)], [ellipsoid()], replace(spec, device=device)).rows[0])
    assert ends[1]["objective"] == pytest.approx(ends[0]["objective"], rel=1e-3)

"""The Hamiltonian's field and its derivatives, off the support too, mass awareness, refusals; its properties are in test_properties.py."""

import pytest
import torch

from shapeflow.errors import ShapeflowError
from shapeflow.hamiltonian import Kernel, Normalization, hamiltonian, metric
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm

D = torch.float64
BACKENDS = ["torch", "native"]


def cloud(n=30, d=2, seed=0, dtype=D):
    g = torch.Generator().manual_seed(seed)
    q, p = (torch.randn(n, d, generator=g, dtype=D) for _ in range(2))
    return q.to(dtype), p.to(dtype), (0.1 + torch.rand(n, generator=g, dtype=D)).to(dtype)


def metric_of(q, mu, sigma, mode="sinkhorn", kernel="gaussian", backend="native", rows=None, **options):
    layout = rows or Ragged((0, len(q)))
    width = torch.as_tensor(sigma, dtype=q.dtype).expand(layout.count).contiguous()
    return metric(Kernel(kernel, width, backend), layout, mu, Normalization(mode, **options))


def test_mass_awareness():
    """One half of a cloud sampled ten times denser, with the same momentum per area: the same velocities after normalization, not before."""
    g = torch.Generator().manual_seed(0)
    q = torch.rand(40, 2, generator=g, dtype=D)
    c = torch.stack([q[:, 1], -q[:, 0]], 1)
    sparse_mu = torch.full((40,), 1 / 40, dtype=D)
    dense_q, dense_c = torch.cat([q[:20].repeat(10, 1), q[20:]]), torch.cat([c[:20].repeat(10, 1), c[20:]])
    dense_mu = torch.cat([torch.full((200,), 1 / 400, dtype=D), sparse_mu[20:]])
    x, rows = q, Ragged((0, 40))
    fields = {}
    for mode in ("sinkhorn", "none"):
        for name, (points, mu, rate) in {"even": (q, sparse_mu, c), "uneven": (dense_q, dense_mu, dense_c)}.items():
            # without normalization every vertex counts one, whatever its share of the area
            p = mu[:, None] * rate if mode == "sinkhorn" else rate
            fields[mode, name] = metric_of(points, mu, 0.3, mode).velocity(x, rows, points, p)
    torch.testing.assert_close(fields["sinkhorn", "uneven"], fields["sinkhorn", "even"], rtol=1e-9, atol=1e-10)
    assert float((fields["none", "uneven"] - fields["none", "even"]).norm()) > float(fields["none", "even"].norm())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"])
def test_gradients_are_exact(backend, mode):
    q, p, mu = cloud(n=9)
    q.requires_grad_()
    p.requires_grad_()
    call = lambda q, p: hamiltonian(q, p, masses=mu, sigma=0.8, normalization=mode, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(call, (q, p), rtol=1e-7, atol=1e-9)
    assert torch.autograd.gradgradcheck(call, (q, p), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode", ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"])
def test_the_field_is_the_gradient_of_the_hamiltonian_on_and_off_the_support(mode):
    rows = Ragged((0, 12, 30))
    q, p, mu = cloud(d=3)
    m = metric_of(q, mu, torch.tensor([0.5, 1.5]), mode, rows=rows)
    leaf_q, leaf_p = q.clone().requires_grad_(), p.clone().requires_grad_()
    g, v = torch.autograd.grad(m.hamiltonian(leaf_q, leaf_p).sum(), (leaf_q, leaf_p))
    field_v, field_g = m.field(q, p)
    torch.testing.assert_close(field_v, v)
    torch.testing.assert_close(field_g, g)
    torch.testing.assert_close(m.velocity(q.clone(), rows, q, p), v, rtol=1e-9, atol=1e-10)
    assert torch.autograd.gradcheck(lambda a, b: m.field(a, b), (leaf_q, leaf_p), rtol=1e-7, atol=1e-8)
    x = torch.randn(5, 3, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, a, b: m.velocity(x, Ragged((0, 2, 5)), a, b), (x, leaf_q, leaf_p), rtol=1e-7, atol=1e-8
    )


@pytest.mark.parametrize("mode", ["sinkhorn_unrolled", "one_step"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unrolled_scaling_is_differentiated_as_autograd_would(mode, backend):
    """Field and pull-back, written out, against the Hamiltonian as written, dense, differentiated twice by torch."""
    rows, sigma = Ragged((0, 12, 12, 30)), torch.tensor([0.5, 1.0, 1.5], dtype=D)
    q, p, mu = cloud(d=3)
    V, h = torch.randn(30, 3, dtype=D), torch.randn(30, 3, dtype=D)
    m = metric_of(q, mu, sigma, mode, "0.6*gaussian + 0.4*cauchy@2.0", backend, rows)
    q.requires_grad_()
    p.requires_grad_()

    def written(q, p, mu, sigma):
        s = (q[:, None] - q[None]).square().sum(2) / sigma**2
        K, ell = 0.6 * (-s).exp() + 0.4 / (1 + s / 4), torch.zeros_like(mu)
        for _ in range(1 if mode == "one_step" else m.options.iterations):
            ell = 0.5 * (ell - (K @ (ell.exp() * mu)).log())
        scaled = ell.exp()[:, None] * p
        return 0.5 * (scaled * (K @ scaled)).sum()

    total = sum(written(q[i], p[i], mu[i], width) for i, width in zip(rows.slices(), sigma, strict=True))
    g, v = torch.autograd.grad(total, (q, p), create_graph=True)
    field = m.field(q, p)
    pulled = torch.autograd.grad(field, (q, p), (V, h))
    want = torch.autograd.grad((v, g), (q, p), (V, h))
    for got, exact in zip((*field, *pulled), (v, g, *want), strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype, rtol", [(D, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_normalized_field_in_cache_is_the_one_product_by_product(d, dtype, rtol):
    """kernels/scaling.cpp against the same written in torch, on a ragged batch, cold and from guesses; a lost problem stays alone."""
    rows, sigma = Ragged((0, 40, 40, 41, 120)), torch.tensor([0.5, 1.0, 1.0, 2.0], dtype=dtype)
    q, p, mu = cloud(120, d, dtype=dtype)
    V, h = cloud(120, d, 1, dtype)[:2]
    found = []
    for backend in ("native", "torch"):
        m, warm = metric_of(q, mu, sigma, "sinkhorn", "0.6*gaussian + 0.4*cauchy@2.0", backend, rows), Warm()
        for points in (q + 0.01 * p, q):
            warm.restart(2)
            *field, kept = m.value(points, p, warm)
            pulled = m.adjoint(points, p, kept, V, h, warm)
        found.append((*field, *pulled))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol)
    q[-1, 0] = torch.nan
    m = metric_of(q, mu, sigma, "sinkhorn", "0.6*gaussian + 0.4*cauchy@2.0", "native", rows)
    *lost, kept = m.value(q, p, None)
    for got, want in zip((*lost, *m.adjoint(q, p, kept, V, h, None)), found[0], strict=True):
        torch.testing.assert_close(got[:41], want[:41], rtol=rtol, atol=rtol)
        assert got[41:].isnan().all()


@pytest.mark.parametrize(
    "mode, kernel, options",
    [
        ("sinkhorn", "2.0*gaussian", {}),
        ("sinkhorn_unrolled", "gaussian", {}),
        ("sinkhorn_unrolled", "gaussian", {"iterations": 9}),  # more features than the compiled sum takes
        ("one_step", "2.0*cauchy", {}),
        ("one_step", "inverse_multiquadric", {}),
        ("one_step", "energy", {}),
        ("one_step", "laplacian", {}),  # its derivatives do not follow from its value
    ],
)
def test_gradient_sums_out_of_the_kept_matrix(mode, kernel, options):
    """Fields and pull-backs whose gradient sums take k from the matrix, over several panels and a tail, against the same product by product."""
    rows, sigma = Ragged((0, 7, 7, 300)), torch.tensor([0.5, 1.0, 2.0], dtype=D)
    q, p, mu = cloud(300)
    V, h = cloud(300, seed=1)[:2]
    found = []
    for backend in ("native", "torch"):
        m = metric_of(q, mu, sigma, mode, kernel, backend, rows, **options)
        *field, kept = m.value(q, p, None)
        found.append((*field, *m.adjoint(q, p, kept, V, h, None)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def test_a_normalized_field_has_the_same_bits_on_any_number_of_threads():
    q, p, mu = cloud(600, 3)
    m, threads, found = metric_of(q, mu, 0.7), torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            *field, kept = m.value(q, p, None)
            found.append((*field, *m.adjoint(q, p, kept, p, q, None)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_a_warm_start_changes_the_work_and_not_the_result():
    q, p, mu = cloud()
    m = metric_of(q, mu, 0.6)
    warm = Warm()
    m.field(q + 0.01 * p, p, warm)
    for cold, warmed in zip(m.field(q, p), m.field(q, p, warm), strict=True):
        torch.testing.assert_close(warmed, cold, rtol=1e-9, atol=1e-10)
    x, one = q[:5] + 0.1, Ragged((0, 5))
    torch.testing.assert_close(m.velocity(x, one, q, p, warm), m.velocity(x, one, q, p), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_points_far_from_the_support_follow_the_nearest_particle(dtype):
    q, p, mu = cloud(dtype=dtype)
    x = q[:3] + 1e3
    v = metric_of(q, mu, 0.1).velocity(x, Ragged((0, 3)), q, p)
    nearest = torch.cdist(x, q).argmin(1)
    torch.testing.assert_close(v, p[nearest] / mu[nearest, None])


def test_a_stopped_scaling_is_logged(caplog):
    q, p, mu = cloud()
    metric_of(q, mu, 0.5, max_iterations=2).field(q, p)
    assert "Sinkhorn scaling stopped after 2 steps" in caplog.text


@pytest.mark.parametrize(
    "change, said",
    [
        ({"masses": torch.ones(3, dtype=D)}, "30 positive numbers"),
        ({"masses": torch.zeros(30, dtype=D)}, "positive"),
        ({"p": torch.zeros(30, 3, dtype=D)}, r"both be \(n, d\)"),
        ({"normalization": "sinkorn"}, "unknown normalization 'sinkorn'"),
    ],
)
def test_refusals(change, said):
    q, p, mu = cloud()
    arguments = {"q": q, "p": p, "masses": mu, "sigma": 1.0} | change
    with pytest.raises(ShapeflowError, match=said):
        hamiltonian(arguments.pop("q"), arguments.pop("p"), **arguments)


@pytest.mark.parametrize("mode", ["sinkhorn", "sinkhorn_unrolled", "one_step"])
def test_bits_of_a_field_and_its_derivative_do_not_depend_on_threads(mode):
    q, p, mu = cloud(n=600, d=3, dtype=torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            leaves = q.clone().requires_grad_(), p.clone().requires_grad_()
            v, g = metric_of(q, mu, 0.8, mode).field(*leaves)
            found.append((v, g, *torch.autograd.grad((v * p).sum() + (g * q).sum(), leaves)))
    finally:
        torch.set_num_threads(threads)
    for again in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(again, found[0], strict=True))

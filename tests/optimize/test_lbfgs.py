"""Batched L-BFGS: the minimum, the price, independence of the problems, every status."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize

from shapeflow.optimize import Objective, minimize
from shapeflow.ragged import Ragged

D = torch.float64


class Rosenbrock(Objective):
    """f_b = Σ_i c_b (y_i − x_i²)² + (1 − x_i)²: minimum 0 at (1, 1), along a valley that c makes narrow."""

    def __init__(self, rows, c, log=None):
        self.rows, self.c, self.log = rows, c, [] if log is None else log

    def evaluate(self, z):
        self.log.append(self.rows.count)
        z = z.detach().requires_grad_()
        x, y = z[:, 0], z[:, 1]
        f = self.rows.sum(self.rows.spread(self.c) * (y - x**2) ** 2 + (1 - x) ** 2)
        (g,) = torch.autograd.grad(f.sum(), z)
        return f.detach(), g

    def select(self, problems):
        return Rosenbrock(self.rows.select(problems)[0], self.c[problems], self.log)


def batch():
    rows = Ragged((0, 1, 4, 10, 11))
    start = 2 * torch.randn(11, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    return Rosenbrock(rows, torch.tensor([100.0, 10.0, 1.0, 1000.0], dtype=D)), start


def test_reaches_the_minimum_of_every_problem():
    objective, start = batch()
    result = minimize(objective, start, max_iter=300, tolerance=1e-12)
    assert set(result.status) == {"converged"}
    torch.testing.assert_close(result.z, torch.ones_like(start), rtol=0, atol=1e-5)
    assert all(
        h[-1] == pytest.approx(v) and list(h) == sorted(h, reverse=True)
        for h, v in zip(result.history, result.value.tolist(), strict=True)
    )


def test_problems_do_not_know_of_each_other():
    objective, start = batch()
    whole = minimize(objective, start, max_iter=300, tolerance=1e-9)
    for b, piece in enumerate(objective.rows.slices()):
        alone = Rosenbrock(Ragged((0, piece.stop - piece.start)), objective.c[b : b + 1])
        single = minimize(alone, start[piece], max_iter=300, tolerance=1e-9)
        assert single.evaluations[0] == whole.evaluations[b] and single.iterations[0] == whole.iterations[b]
        torch.testing.assert_close(single.z, whole.z[piece], rtol=1e-9, atol=1e-9)


def test_finished_problems_leave_the_batch():
    objective, start = batch()
    minimize(objective, start, max_iter=300, tolerance=1e-9)
    assert objective.log[0] == 4 and objective.log[-1] <= 2


def test_costs_about_what_scipy_does():
    objective, start = batch()
    for b, piece in enumerate(objective.rows.slices()):
        alone = Rosenbrock(Ragged((0, piece.stop - piece.start)), objective.c[b : b + 1])

        def f(v, alone=alone):
            value, gradient = alone.evaluate(torch.tensor(v).view(-1, 2))
            return float(value), np.ravel(gradient.numpy())

        theirs = scipy_minimize(
            f, start[piece].numpy().ravel(), jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-5}
        )
        ours = minimize(alone, start[piece], max_iter=300, max_evaluations=int(1.2 * theirs.nfev) + 2, tolerance=0.0)
        assert float(ours.value) <= max(theirs.fun, 1e-9)


def test_each_status_has_its_row_and_the_batch_survives():
    class Mixed(Objective):
        """Problem 0 is a bowl; 1 is NaN from the start; 2 falls for ever; 3 has a gradient that lies."""

        def __init__(self, kept=(0, 1, 2, 3)):
            self.kept, self.rows = kept, Ragged.of_sizes([1] * len(kept))

        def evaluate(self, z):
            x = z[:, 0]
            f = torch.stack([[x[i] ** 2, x[i] * torch.nan, -x[i], x[i] ** 2][k] for i, k in enumerate(self.kept)])
            g = torch.stack([[2 * x[i], x[i], -torch.ones(()).to(x), -2 * x[i]][k] for i, k in enumerate(self.kept)])
            return f, g[:, None]

        def select(self, problems):
            return Mixed([self.kept[b] for b in problems])

    result = minimize(Mixed(), torch.full((4, 1), 3.0, dtype=D), max_iter=30)
    assert result.status == ("converged", "diverged", "line_search_failed", "line_search_failed")
    assert float(result.z[0]) == pytest.approx(0, abs=1e-6) and float(result.z[3]) == 3.0


def test_out_of_iterations_or_evaluations():
    objective, start = batch()
    assert set(minimize(objective, start, max_iter=3).status) == {"max_iter"}
    result = minimize(objective, start, max_evaluations=5)
    assert set(result.status) == {"max_iter"} and max(result.evaluations) == 5


def test_already_at_the_minimum():
    objective, start = batch()
    result = minimize(objective, torch.ones_like(start))
    assert result.status == ("converged",) * 4 and result.evaluations == (1,) * 4


def test_an_overflowing_trial_is_stepped_back_from():
    class Wall(Objective):
        rows = Ragged((0, 1))

        def evaluate(self, z):
            x = z[:, 0]
            return torch.where(x > 1e-3, torch.inf, (x + 1) ** 2), 2 * (z + 1)

        def select(self, problems):
            return self

        def first_step(self, z, value, slope, direction):
            return torch.tensor([-10.0], dtype=D).abs() * 1e3

    result = minimize(Wall(), torch.tensor([[-1e3]], dtype=D), tolerance=1e-12)
    assert float(result.z) == pytest.approx(-1, abs=1e-6)

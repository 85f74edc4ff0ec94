"""Minimising a batch of energies at once: every problem has its own history, line search and status."""

from shapeflow.optimize.lbfgs import STATUSES, Minimum, Objective, minimize

__all__ = ["STATUSES", "Minimum", "Objective", "minimize"]

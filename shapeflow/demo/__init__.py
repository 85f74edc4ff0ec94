"""A cohort with known truth: shapes that shapeflow makes itself, to try a study on and to test it against."""

from __future__ import annotations

from shapeflow.demo.cohort import LABELS, Truth, generate, load_truth, plan, subjects
from shapeflow.demo.spec import DemoSpec

__all__ = ["LABELS", "DemoSpec", "Truth", "generate", "load_truth", "plan", "subjects"]

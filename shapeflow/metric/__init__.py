"""Metrics of shapes: plain, normalized to a tolerance, normalized by a number of steps."""

from __future__ import annotations

from torch import Tensor

from shapeflow.metric.base import Metric
from shapeflow.metric.plain import PlainMetric
from shapeflow.metric.sinkhorn import SinkhornMetric
from shapeflow.metric.unrolled import UnrolledMetric
from shapeflow.normalization import Normalization
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged

__all__ = ["Metric", "PlainMetric", "metric"]

_METRICS = {
    "none": PlainMetric,
    "sinkhorn": SinkhornMetric,
    "sinkhorn_unrolled": UnrolledMetric,
    "one_step": UnrolledMetric,
}


def metric(kernel: Kernel, rows: Ragged, masses: Tensor, options: Normalization) -> Metric:
    return _METRICS[options.mode](kernel, rows, masses, options)

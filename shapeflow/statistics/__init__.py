"""From distances and momenta to findings. scikit-learn, scipy and statsmodels do the statistics; the kernel metric is ours."""

from __future__ import annotations

from shapeflow.statistics.embedding import Scaling, classical_scaling, cluster_order, gower, tree
from shapeflow.statistics.selection import Choice, choose_run

__all__ = ["Choice", "Scaling", "choose_run", "classical_scaling", "cluster_order", "gower", "tree"]

"""From distances and momenta to findings. scikit-learn, SciPy and statsmodels do the statistics; the kernel metric is ours."""

from __future__ import annotations

from shapeflow.atlas import TangentSpace
from shapeflow.statistics.analyse import Analysis, Options, analyse
from shapeflow.statistics.classify import Classification, classify
from shapeflow.statistics.embedding import Scaling, classical_scaling, cluster_order, gower, tree
from shapeflow.statistics.files import analyse_run, load_space
from shapeflow.statistics.geodesics import regress_run, shoot_run, transport_run
from shapeflow.statistics.maps import DifferenceMap, difference_map
from shapeflow.statistics.outliers import outlier_table
from shapeflow.statistics.pca import TangentPca, generalisation, mode_momenta, specificity, tangent_pca
from shapeflow.statistics.permutation import Test, hotelling, neighbours, permanova, regression
from shapeflow.statistics.selection import Choice, choose_run, mark_chosen, selected
from shapeflow.statistics.trajectory import Trajectory, geodesic_regression
from shapeflow.statistics.transport import Transported, parallel_transport, transported_space

__all__ = [
    "Analysis",
    "Choice",
    "Classification",
    "DifferenceMap",
    "Options",
    "Scaling",
    "TangentPca",
    "TangentSpace",
    "Test",
    "Trajectory",
    "Transported",
    "analyse",
    "analyse_run",
    "choose_run",
    "classical_scaling",
    "classify",
    "cluster_order",
    "difference_map",
    "generalisation",
    "geodesic_regression",
    "gower",
    "hotelling",
    "load_space",
    "mark_chosen",
    "mode_momenta",
    "neighbours",
    "outlier_table",
    "parallel_transport",
    "permanova",
    "regress_run",
    "regression",
    "selected",
    "shoot_run",
    "specificity",
    "tangent_pca",
    "transport_run",
    "transported_space",
    "tree",
]

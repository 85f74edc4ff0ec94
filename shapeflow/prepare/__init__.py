"""From a folder of meshes to a cohort: list, read, judge, repair, resample, align, write."""

from shapeflow.prepare.cohort import Cohort, load_cohort, prepare_cohort
from shapeflow.prepare.dataset import Dataset, Subject, Unmatched, scan, unmatched
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.transform import Transform, load_transform

__all__ = [
    "Cohort",
    "Dataset",
    "Prepare",
    "Subject",
    "Transform",
    "Unmatched",
    "load_cohort",
    "load_transform",
    "prepare_cohort",
    "scan",
    "unmatched",
]

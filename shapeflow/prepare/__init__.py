"""From a folder of meshes to a cohort: list, read, judge, repair, resample, align, write."""

from shapeflow.io.isolated import Limits
from shapeflow.prepare.cohort import Cohort, Unusable, load_cohort, prepare_cohort, rehearse
from shapeflow.prepare.dataset import Dataset, Subject, Unmatched, scan, unmatched
from shapeflow.prepare.findings import Finding
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.transform import Transform, load_transform
from shapeflow.prepare.validation import quality_table, validate_cohort

__all__ = [
    "Cohort",
    "Dataset",
    "Finding",
    "Limits",
    "Prepare",
    "Subject",
    "Transform",
    "Unmatched",
    "Unusable",
    "load_cohort",
    "load_transform",
    "prepare_cohort",
    "quality_table",
    "rehearse",
    "scan",
    "unmatched",
    "validate_cohort",
]

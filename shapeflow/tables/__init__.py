"""Results as tables: one tidy schema, Parquet for programs and CSV for people."""

from __future__ import annotations

from shapeflow.tables.collect import atlas_table, matching_table, summary_table
from shapeflow.tables.distances import DistanceMatrix, distance_matrix, distances_table
from shapeflow.tables.files import read_table, write_csv, write_parquet, write_table
from shapeflow.tables.labels import categorical_labels, is_measurement, label_names, subject_labels
from shapeflow.tables.schema import ATLAS, DISTANCES, LENGTH, MATCHING, SWEEP, Column, conform, failed
from shapeflow.tables.settings import varied_settings
from shapeflow.tables.sweep import study_sweep, sweep_table

__all__ = [
    "ATLAS",
    "DISTANCES",
    "LENGTH",
    "MATCHING",
    "SWEEP",
    "Column",
    "DistanceMatrix",
    "atlas_table",
    "categorical_labels",
    "conform",
    "distance_matrix",
    "distances_table",
    "failed",
    "is_measurement",
    "label_names",
    "matching_table",
    "read_table",
    "subject_labels",
    "summary_table",
    "study_sweep",
    "sweep_table",
    "varied_settings",
    "write_csv",
    "write_parquet",
    "write_table",
]

from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.tables(snakemake.params.runs, snakemake.params.label, Path(snakemake.output.sweep).parent)

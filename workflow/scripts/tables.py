from pathlib import Path

from shapeflow.job import job
from shapeflow.study.tables import tables

with job(snakemake):
    tables(snakemake.params.runs, snakemake.params.label, Path(snakemake.output.sweep).parent)

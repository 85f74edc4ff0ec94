from pathlib import Path

from shapeflow.job import job
from shapeflow.study.tables import tables

with job(snakemake):
    folder = Path(snakemake.output.sweep).parent  # <dataset>/studies/<study>/tables
    runs = [folder.parents[2] / "runs" / run for run in snakemake.params.runs]
    tables(runs, snakemake.params.label, folder)

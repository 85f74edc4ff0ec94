from pathlib import Path

from shapeflow.job import job
from shapeflow.study.report import report

with job(snakemake):
    report(Path(snakemake.output[0]).parent, snakemake.params.settings)

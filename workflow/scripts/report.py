from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.report(Path(snakemake.output[0]).parent, snakemake.params.settings)

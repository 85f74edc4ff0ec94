from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.generate(snakemake.params.config, Path(snakemake.output.labels).parent)

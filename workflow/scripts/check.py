from pathlib import Path

from shapeflow.job import job
from shapeflow.study.check import check

with job(snakemake):
    check(snakemake.params.config, snakemake.params.subjects, Path(snakemake.input.subjects).parent)

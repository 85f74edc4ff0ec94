from pathlib import Path

from shapeflow.job import job
from shapeflow.study.generate import generate

with job(snakemake):
    generate(snakemake.params.config, Path(snakemake.output.labels).parent)

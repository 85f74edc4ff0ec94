from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.atlas(
        snakemake.input.config,
        Path(snakemake.input.cohort).parent,
        **snakemake.config["runtime"],
        out=Path(snakemake.output.rows).parent,
    )

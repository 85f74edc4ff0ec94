from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.match(
        snakemake.input.config,
        snakemake.params.pairs,
        Path(snakemake.input.cohort).parent,
        **snakemake.config["runtime"],
        rows=snakemake.output.rows,
        momenta=snakemake.output.momenta,
        code=snakemake.params.code,
    )

from pathlib import Path

from shapeflow.job import job
from shapeflow.study.match import match

with job(snakemake):
    match(
        snakemake.input.config,
        snakemake.params.pairs,
        Path(snakemake.input.cohort).parent,
        **snakemake.config["runtime"],
        rows=snakemake.output.rows,
        momenta=snakemake.output.momenta,
        code=snakemake.params.code,
    )

from pathlib import Path

from shapeflow.job import job
from shapeflow.study.atlas import atlas

with job(snakemake):
    atlas(
        snakemake.input.config,
        Path(snakemake.input.cohort).parent,
        **snakemake.config["runtime"],
        processes=snakemake.config["processes"],
        out=Path(snakemake.output.rows).parent,
    )

from pathlib import Path

from shapeflow.job import job
from shapeflow.study.geodesic import geodesic

with job(snakemake):
    geodesic(
        snakemake.input.config,
        Path(snakemake.input.cohort).parent,
        **snakemake.config["runtime"],
        tool=snakemake.params.tool,
        what=snakemake.params.what,
        options=snakemake.params.options,
        out=Path(snakemake.output[0]).parent,
    )

from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    folder = Path(snakemake.output[0]).parent
    study.manifest(
        folder.name,
        snakemake.wildcards.dataset,
        snakemake.params.runs,
        snakemake.params.geodesics,
        snakemake.output[0],
    )

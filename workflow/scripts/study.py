from pathlib import Path

from shapeflow.job import job
from shapeflow.study.records import manifest

with job(snakemake):
    folder = Path(snakemake.output.manifest).parent
    manifest(
        folder.name,
        snakemake.wildcards.dataset,
        snakemake.params.runs,
        snakemake.params.geodesics,
        snakemake.output.manifest,
        snakemake.output.grid,
    )

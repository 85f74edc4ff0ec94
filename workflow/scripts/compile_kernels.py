from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    prepared = Path(snakemake.input.cohort).parent
    study.compile_kernels(snakemake.params.config, prepared, **snakemake.config["runtime"], out=snakemake.output[0])

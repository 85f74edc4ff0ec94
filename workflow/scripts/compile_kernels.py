from pathlib import Path

from shapeflow.job import job
from shapeflow.study.compile_kernels import compile_kernels

with job(snakemake):
    prepared = Path(snakemake.input.cohort).parent
    compile_kernels(snakemake.params.config, prepared, **snakemake.config["runtime"], out=snakemake.output[0])

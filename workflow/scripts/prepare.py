from pathlib import Path

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    raw = Path(snakemake.input.raw[0]).parent if snakemake.input.get("raw") else None
    study.prepare(snakemake.params.config, snakemake.params.subjects, Path(snakemake.output.subjects).parent, raw)

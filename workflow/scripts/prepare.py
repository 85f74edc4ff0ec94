from pathlib import Path

from shapeflow.job import job
from shapeflow.study.prepare import prepare

with job(snakemake):
    raw = Path(snakemake.input.raw[0]).parent if snakemake.input.get("raw") else None
    prepare(snakemake.params.config, Path(snakemake.output.subjects).parent, raw)

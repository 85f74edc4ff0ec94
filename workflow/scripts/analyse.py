from pathlib import Path

from shapeflow.job import job
from shapeflow.study.analyse import analyse

with job(snakemake):
    analyse(Path(snakemake.output[0]).parents[1])

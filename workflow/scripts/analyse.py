from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.analyse(snakemake.params.run)

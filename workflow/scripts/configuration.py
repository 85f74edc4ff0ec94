from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.configuration(snakemake.params.config, snakemake.output[0])

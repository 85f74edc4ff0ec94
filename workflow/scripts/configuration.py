from shapeflow.job import job
from shapeflow.study.records import configuration

with job(snakemake):
    configuration(snakemake.params.config, snakemake.output[0])

from shapeflow import study
from shapeflow.job import job

with job(snakemake):
    study.distances(
        snakemake.input.config,
        snakemake.input.subjects,
        snakemake.input.shards,
        snakemake.output.matching,
        snakemake.output.distances,
    )

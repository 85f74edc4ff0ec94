from shapeflow.job import job
from shapeflow.study.distances import distances

with job(snakemake):
    distances(
        snakemake.input.config,
        snakemake.input.subjects,
        snakemake.input.shards,
        snakemake.output.matching,
        snakemake.output.distances,
    )

from shapeflow.job import job
from shapeflow.study.analyse import analyse

with job(snakemake):
    analyse(snakemake.params.run)

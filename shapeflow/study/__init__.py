"""One module a rule of the workflow, with one function of the same name: files in, files out. The only glue between the package's layers and Snakemake.

Imports that cost something stand inside the functions: a job pays for what it uses, and fixes its threads and its GPU before torch loads. What a
step depends on is read from its module's imports (`config.digest`), so nothing is re-exported here.
"""

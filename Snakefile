# From a folder of meshes to a shape study: `snakemake --cores 2` runs the study of config/, and so does `make study`.
#
#   snakemake --cores 8 --config overrides="dataset=folder dataset.path=/data/meshes sigma=5,10 kernel=gaussian,cauchy"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/match.smk"
include: "workflow/rules/atlas.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/geodesic.smk"
include: "workflow/rules/tables.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        targets(),

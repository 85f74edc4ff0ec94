rule atlas:
    input:
        config=rules.configuration.output[0],
        cohort=lambda w: f"{prepared_dir(run_of(w))}/cohort.json",
        table=lambda w: f"{prepared_dir(run_of(w))}/subjects.csv",
        compiled=lambda w: compiled(run_of(w)),
        given=lambda w: files_among([run_of(w).config["atlas"]["template"]]),
        subjects=lambda w: fingerprints(run_of(w), PLAN.cohort(run_of(w)).subjects),
    output:
        rows=f"{RESULTS}/{{dataset}}/runs/{{run}}/atlas/atlas.parquet",
        template=f"{RESULTS}/{{dataset}}/runs/{{run}}/atlas/template.vtk",
        momenta=f"{RESULTS}/{{dataset}}/runs/{{run}}/atlas/momenta.npz",
        history=f"{RESULTS}/{{dataset}}/runs/{{run}}/atlas/history.csv",
    log:
        f"{RESULTS}/{{dataset}}/logs/atlas-{{run}}.log",
    threads: max(THREADS["atlas"], PROCESSES)
    resources:
        gpu=lambda w: PROCESSES * gpus(w),
    params:
        code=CODE["atlas"],
    script:
        "../scripts/atlas.py"

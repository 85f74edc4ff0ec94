rule compile_kernels:
    input:
        cohort=f"{RESULTS}/{{dataset}}/prepared/{{prepared}}/cohort.json",
    output:
        f"{RESULTS}/{{dataset}}/compiled/{{prepared}}/{{kernels}}.json",
    log:
        f"{RESULTS}/{{dataset}}/logs/compile-{{prepared}}-{{kernels}}.log",
    resources:
        gpu=gpus,
        compiler=1,
    params:
        config=lambda w: next(
            dict(r.config)
            for r in RUNS.values()
            if (r.dataset, r.prepare_id, planning.kernels_id(r)) == (w.dataset, w.prepared, w.kernels)
        ),
        code=CODE["compile_kernels"],
    script:
        "../scripts/compile_kernels.py"


rule match:
    input:
        config=rules.configuration.output[0],
        cohort=lambda w: f"{prepared_dir(run_of(w))}/cohort.json",
        compiled=lambda w: compiled(run_of(w)),
        subjects=match_input,
    output:
        rows=f"{RESULTS}/{{dataset}}/runs/{{run}}/shards/{{shard}}.parquet",
        momenta=f"{RESULTS}/{{dataset}}/runs/{{run}}/momenta/{{shard}}.npz",
    log:
        f"{RESULTS}/{{dataset}}/logs/match-{{run}}-{{shard}}.log",
    threads: THREADS["match"]
    resources:
        gpu=gpus,
    params:
        pairs=lambda w: SHARDS[w.dataset, w.run][w.shard],
        code=CODE["match"],
    script:
        "../scripts/match.py"


rule distances:
    input:
        config=rules.configuration.output[0],
        subjects=lambda w: f"{prepared_dir(run_of(w))}/subjects.csv",
        shards=lambda w: [f"{run_dir(run_of(w))}/shards/{shard}.parquet" for shard in SHARDS[w.dataset, w.run]],
    output:
        matching=f"{RESULTS}/{{dataset}}/runs/{{run}}/matching.parquet",
        distances=f"{RESULTS}/{{dataset}}/runs/{{run}}/distances.parquet",
    log:
        f"{RESULTS}/{{dataset}}/logs/distances-{{run}}.log",
    params:
        code=CODE["distances"],
    script:
        "../scripts/distances.py"

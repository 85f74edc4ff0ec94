rule compile_kernels:
    input:
        cohort=f"{RESULTS}/{{dataset}}/prepared/{{prepared}}/cohort.json",
    output:
        f"{RESULTS}/{{dataset}}/compiled/{{prepared}}/{{kernels}}.json",
    log:
        f"{RESULTS}/{{dataset}}/logs/compile-{{prepared}}-{{kernels}}.log",
    params:
        config=lambda w: next(dict(r.config) for r in RUNS.values() if (r.dataset, r.prepare_id, planning.kernels_id(r)) == (w.dataset, w.prepared, w.kernels)),
        code=CODE["compile_kernels"],
    resources:
        gpu=gpus,
        compiler=1,
    script:
        "../scripts/compile_kernels.py"


def compiled(run):
    return f"{RESULTS}/{run.dataset}/compiled/{run.prepare_id}/{planning.kernels_id(run)}.json"


def match_input(wildcards):
    run = run_of(wildcards)
    pairs = SHARDS[run.dataset, run.id][wildcards.shard]
    return fingerprints(run, members(pairs))


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
    params:
        pairs=lambda w: SHARDS[w.dataset, w.run][w.shard],
        code=CODE["match"],
    threads: THREADS["match"]
    resources:
        gpu=gpus,
    retries: 1
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

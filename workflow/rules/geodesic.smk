# Tools on a run's atlas that the study asks for: a folder runs/<run>/geodesic/<item>/ each.


rule regression:
    input:
        config=rules.configuration.output[0],
        cohort=lambda w: f"{prepared_dir(run_of(w))}/cohort.json",
        atlas=rules.atlas.output,
        subjects=lambda w: fingerprints(run_of(w), PLAN.cohort(run_of(w)).subjects),
    output:
        multiext(
            f"{RESULTS}/{{dataset}}/runs/{{run}}/geodesic/{{item}}/",
            "summary.csv",
            "frames.npz",
            "momentum.vtk",
        ),
    log:
        f"{RESULTS}/{{dataset}}/logs/geodesic-{{run}}-{{item}}.log",
    wildcard_constraints:
        item="regression-[^/]+",
    threads: THREADS["atlas"]
    resources:
        gpu=gpus,
    params:
        tool="regression",
        what=lambda w: list(GEODESICS[w.item][1]),
        options={key: PLAN.study.settings["geodesic"][key] for key in ["times", "max_iter"]},
        code=CODE["geodesic"],
    script:
        "../scripts/geodesic.py"


rule shoot:
    input:
        config=rules.configuration.output[0],
        cohort=lambda w: f"{prepared_dir(run_of(w))}/cohort.json",
        atlas=rules.atlas.output,
        momenta=lambda w: files_among(GEODESICS[w.item][1]),
    output:
        multiext(
            f"{RESULTS}/{{dataset}}/runs/{{run}}/geodesic/{{item}}/",
            "summary.csv",
            "frames.npz",
            "momentum.vtk",
        ),
    log:
        f"{RESULTS}/{{dataset}}/logs/geodesic-{{run}}-{{item}}.log",
    wildcard_constraints:
        item="shoot-[^/]+",
    params:
        tool="shoot",
        what=lambda w: list(GEODESICS[w.item][1]),
        options={key: PLAN.study.settings["geodesic"][key] for key in ["times"]},
        code=CODE["geodesic"],
    script:
        "../scripts/geodesic.py"


rule transport:
    input:
        config=rules.configuration.output[0],
        cohort=lambda w: f"{prepared_dir(run_of(w))}/cohort.json",
        atlas=rules.atlas.output,
        momenta=lambda w: files_among(GEODESICS[w.item][1]),
    output:
        multiext(
            f"{RESULTS}/{{dataset}}/runs/{{run}}/geodesic/{{item}}/",
            "summary.csv",
            "frames.npz",
            "momentum.vtk",
        ),
    log:
        f"{RESULTS}/{{dataset}}/logs/geodesic-{{run}}-{{item}}.log",
    wildcard_constraints:
        item="transport-[^/]+",
    params:
        tool="transport",
        what=lambda w: list(GEODESICS[w.item][1]),
        options={key: PLAN.study.settings["geodesic"][key] for key in ["times", "steps"]},
        code=CODE["geodesic"],
    script:
        "../scripts/geodesic.py"

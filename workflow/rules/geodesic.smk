# Tools on a run's atlas that the study asks for: a folder runs/<run>/geodesic/<item>/ each.


rule shoot:
    input:
        config=rules.configuration.output[0],
        cohort=lambda w: f"{prepared_dir(run_of(w))}/cohort.json",
        atlas=rules.atlas.output,
        read=geodesic_input,
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
        tool=lambda w: GEODESICS[w.item][0],
        what=lambda w: list(GEODESICS[w.item][1]),
        options=geodesic_options("times"),
        code=CODE["geodesic"],
    script:
        "../scripts/geodesic.py"


use rule shoot as transport with:
    wildcard_constraints:
        item="transport-[^/]+",
    params:
        options=geodesic_options("times", "steps"),


use rule shoot as regression with:
    wildcard_constraints:
        item="regression-[^/]+",
    threads: THREADS["atlas"]
    resources:
        gpu=gpus,
    params:
        options=geodesic_options("times", "max_iter"),

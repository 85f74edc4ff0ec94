rule statistics:
    input:
        lambda w: run_results(run_of(w)),
    output:
        # summary.csv is written last; difference maps and mode meshes lie beside it, as many as there are labels and components
        multiext(
            f"{RESULTS}/{{dataset}}/runs/{{run}}/statistics/",
            "summary.csv",
            "tests.csv",
            "scores.csv",
            "components.csv",
            "modes.npz",
        ),
    log:
        f"{RESULTS}/{{dataset}}/logs/statistics-{{run}}.log",
    params:
        code=CODE["analyse"],
    script:
        "../scripts/analyse.py"

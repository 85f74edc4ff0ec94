rule study:
    output:
        manifest=f"{RESULTS}/{{dataset}}/studies/{STUDY}/study.json",
        grid=f"{RESULTS}/{{dataset}}/studies/{STUDY}/{GRID}",
    log:
        f"{RESULTS}/{{dataset}}/logs/study-{STUDY}.log",
    localrule: True
    params:
        runs=lambda w: [[run.id, run.prepare_id, run.raw_id] for run in PLAN.study.of(w.dataset)],
        geodesics=list(GEODESICS),
    script:
        "../scripts/study.py"


rule tables:
    input:
        grid=rules.study.output.grid,
        runs=lambda w: [table for run in PLAN.study.of(w.dataset) for table in run_tables(run)],
    output:
        matching=multiext(f"{RESULTS}/{{dataset}}/studies/{STUDY}/tables/matching", ".parquet", ".csv"),
        atlas=multiext(f"{RESULTS}/{{dataset}}/studies/{STUDY}/tables/atlas", ".parquet", ".csv"),
        selected=f"{RESULTS}/{{dataset}}/studies/{STUDY}/selected.json",
        sweep=report(
            f"{RESULTS}/{{dataset}}/studies/{STUDY}/tables/sweep.csv",
            caption="../report/sweep.rst",
            category="Sweep",
            labels={"dataset": "{dataset}", "table": "sweep"},
        ),
    log:
        f"{RESULTS}/{{dataset}}/logs/tables-{STUDY}.log",
    params:
        runs=lambda w: [run.id for run in PLAN.study.of(w.dataset)],
        label=PLAN.study.settings["report"]["label"],
        code=CODE["tables"],
    script:
        "../scripts/tables.py"


rule report:
    input:
        tables=rules.tables.output,
        study=rules.study.output.manifest,
        geodesics=lambda w: [table for run in PLAN.study.of(w.dataset) for table in geodesic_tables(run)],
        quality=lambda w: sorted({f"{prepared_dir(run)}/quality.csv" for run in PLAN.study.of(w.dataset)}),
    output:
        report(
            f"{RESULTS}/{{dataset}}/studies/{STUDY}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"dataset": "{dataset}", "table": "whole study"},
        ),
    log:
        f"{RESULTS}/{{dataset}}/logs/report-{STUDY}.log",
    params:
        settings=dict(PLAN.study.settings["report"]),
        code=CODE["report"],
    script:
        "../scripts/report.py"

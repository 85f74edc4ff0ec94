rule generate:
    output:
        labels=f"{RESULTS}/{{dataset}}/raw/{{raw}}/labels.csv",
        truth=f"{RESULTS}/{{dataset}}/raw/{{raw}}/truth.npz",
    log:
        f"{RESULTS}/{{dataset}}/logs/generate-{{raw}}.log",
    params:
        config=lambda w: next(
            dict(r.config["dataset"]) for r in RUNS.values() if (r.dataset, r.raw_id) == (w.dataset, w.raw)
        ),
        code=CODE["generate"],
    script:
        "../scripts/generate.py"


# One rule a prepared cohort (one or two in a study), because their outputs differ: a file for each of its subjects.
for cohort in PLAN.cohorts.values():

    rule:
        name:
            f"prepare_{cohort.dataset}_{cohort.prepare_id}".replace("-", "_").replace(".", "_")
        input:
            files=cohort.files,
            raw=[f"{RESULTS}/{cohort.dataset}/raw/{cohort.raw_id}/labels.csv"] if cohort.raw_id else [],
        output:
            subjects=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/subjects.csv",
            quality=report(
                f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/quality.csv",
                caption="../report/quality.rst",
                category="Cohort",
                labels={"dataset": cohort.dataset, "table": "quality"},
            ),
            cohort=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/cohort.json",
            fingerprints=[
                f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/fingerprints/{subject}.txt"
                for subject in cohort.subjects
            ],
        log:
            f"{RESULTS}/{cohort.dataset}/logs/prepare-{cohort.prepare_id}.log",
        params:
            config=dict(cohort.config),
            subjects=list(cohort.subjects),
            code=CODE["prepare"],
        script:
            "../scripts/prepare.py"


rule configuration:
    output:
        f"{RESULTS}/{{dataset}}/runs/{{run}}/config.yaml",
    log:
        f"{RESULTS}/{{dataset}}/logs/configuration-{{run}}.log",
    localrule: True
    params:
        config=lambda w: dict(run_of(w).config),
    script:
        "../scripts/configuration.py"

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


# Two rules a prepared cohort (one or two in a study), because their outputs differ: a file for each of its subjects. The first keeps its tables
# whatever it found; the second says whether the study goes on.
for cohort in PLAN.cohorts.values():

    rule:
        name:
            rule_name("prepare", cohort)
        input:
            files=cohort.files,
            raw=[f"{RESULTS}/{cohort.dataset}/raw/{cohort.raw_id}/labels.csv"] if cohort.raw_id else [],
        output:
            subjects=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/subjects.csv",
            quality=report(
                f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/quality.csv",
                caption="../report/quality.rst",
                category="Quality",
                labels={"dataset": cohort.dataset, "table": "quality"},
            ),
            findings=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/findings.csv",
        log:
            f"{RESULTS}/{cohort.dataset}/logs/prepare-{cohort.prepare_id}.log",
        params:
            config=dict(cohort.config),
            code=CODE["prepare"],
        script:
            "../scripts/prepare.py"

    rule:
        name:
            rule_name("check", cohort)
        input:
            subjects=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/subjects.csv",
            quality=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/quality.csv",
            findings=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/findings.csv",
        output:
            cohort=f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/cohort.json",
            fingerprints=[
                f"{RESULTS}/{cohort.dataset}/prepared/{cohort.prepare_id}/fingerprints/{subject}.txt"
                for subject in cohort.subjects
            ],
        log:
            f"{RESULTS}/{cohort.dataset}/logs/check-{cohort.prepare_id}.log",
        params:
            config=dict(cohort.config),
            subjects=list(cohort.subjects),
            code=CODE["check"],
        script:
            "../scripts/check.py"


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

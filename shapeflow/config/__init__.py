"""From a configuration to the runs of a study: compose, expand the grid, validate, name by content.

    compose   groups and overrides into one configuration, by Hydra
    grid      hydra.sweeper.params and the command line into jobs, by Hydra's own parser
    validate  refuses what a run could not use (workflow/schemas/config.schema.yaml)
    identity  names a run by the keys that its results depend on
    expand    overrides -> Study
    pairs     subjects -> shards
    digest    the code behind a step
    plan      all of it, once, for a workflow and its jobs

Nothing here imports torch, and reading a plan imports no Hydra: a job starts quickly.
"""

from __future__ import annotations

from shapeflow.config.study import Run, Study

__all__ = ["Run", "Study"]

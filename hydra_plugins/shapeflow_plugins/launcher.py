"""The whole batch of a sweep as one Snakemake DAG.

`launch()` hands the batch to Snakemake and then lets Hydra's basic launcher call the task once for each job; the task reads the finished
run's table and returns its objective. A sweeper that proposes values (Optuna) so gets its trials through whatever executor the profile names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


@dataclass
class SnakemakeLauncherConf:
    _target_: str = "hydra_plugins.shapeflow_plugins.launcher.SnakemakeLauncher"
    cores: str = "all"  # or a number
    profile: str | None = None  # a Snakemake profile: workflow/profiles/gpu, slurm or your own
    args: list[str] = field(default_factory=list)  # more of Snakemake's arguments, as they are


ConfigStore.instance().store(group="hydra/launcher", name="snakemake", node=SnakemakeLauncherConf, provider="shapeflow")


class SnakemakeLauncher(BasicLauncher):
    def __init__(self, cores: str = "all", profile: str | None = None, args: Sequence[str] = ()) -> None:
        super().__init__()
        self.cores, self.profile, self.args = str(cores), profile, list(args)
        self.launched: list[list[str]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from shapeflow.launch import StudyFailed, snakemake

        # a sweeper may come back with more trials: the tables hold them all
        self.launched += [list(job) for job in job_overrides]
        try:
            snakemake(jobs=self.launched, cores=self.cores, profile=self.profile, args=self.args)
        except StudyFailed as error:
            raise SystemExit(f"shapeflow: {error}") from None  # Hydra would print a traceback of its own
        return super().launch(job_overrides, initial_job_idx)

"""MLflow: the server in MLFLOW_TRACKING_URI, or mlflow.db beside the runs' folders."""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from actors.tracking.identity import PROJECT, Identity, endings
from conf.load import flatten

TAG = "microbudget.id"

LONGEST = 500
"""Characters of a parameter that every version of the server takes."""

MOST_PARAMETERS = 100
"""That a server takes at once."""


class MlflowTracker:
    """Logs to one run of mlflow, found again by its tag over all resumes."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._client: Any = None
        self._run = ""

    def begin(self, next_update: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        if self._run:
            return
        server, here = os.environ.get("MLFLOW_TRACKING_URI"), self._identity.folder.resolve().parent
        self._client = MlflowClient(server or f"sqlite:///{here / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        files = None if server else (here / "mlflow-files").as_uri()
        experiment = known.experiment_id if known else self._client.create_experiment(name, artifact_location=files)
        found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{self._identity.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.set_terminated(self._run, "RUNNING")
            return
        tags = {TAG: self._identity.id}
        run = self._client.create_run(experiment, run_name=self._identity.name, tags=tags).info.run_id
        parameters = [Param(key, str(value)[:LONGEST]) for key, value in flatten(self._identity.settings).items()]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            self._client.log_batch(run, params=parameters[start : start + MOST_PARAMETERS])
        self._run = run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(plain(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        self._client.log_text(self._run, json.dumps(rows, indent=1), f"samples/{name}.json")

    def end(self, summary: dict[str, Any]) -> None:
        for key, value in endings(summary).items():
            self._client.set_tag(self._run, f"summary.{key}", str(value))
        self._client.log_text(self._run, json.dumps(summary, indent=1), "summary.json")
        done = summary.get("status") in ("completed", "budget_exhausted")
        self._client.set_terminated(self._run, "FINISHED" if done else "FAILED")


def plain(name: str) -> str:
    """Return a metric's name in mlflow, which has no @: pass@1 is pass_at_1."""
    return name.replace("@", "_at_")

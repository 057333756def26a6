"""Trackio: a local dashboard, or a Space where TRACKIO_SPACE_ID names one."""

import os
from collections.abc import Mapping
from typing import Any

from actors.tracking.identity import PROJECT, Identity, endings


class TrackioTracker:
    """Logs to one run of trackio, over all resumes. Updates that are done again come again."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._run: Any = None

    def begin(self, next_update: int) -> None:
        import trackio

        if self._run:
            return
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=self._identity.title,
            resume="allow",
            config=self._identity.settings,
            space_id=os.environ.get("TRACKIO_SPACE_ID"),
            embed=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "update": step}, step=step)

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        import pandas
        import trackio

        self._run.log({f"samples/{name.partition('-')[0]}": trackio.Table(dataframe=pandas.DataFrame(rows))}, step=step)

    def end(self, summary: dict[str, Any]) -> None:
        values = {f"summary/{key}": value for key, value in endings(summary).items()}
        self._run.log({**values, "events": [str(event) for event in summary.get("events", [])]})
        self._run.finish()

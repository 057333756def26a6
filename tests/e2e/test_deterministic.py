"""A deterministic run, again, and killed and resumed: the same to the bit, with every real part."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Run, begin, begin_once
from tests.json_lines import read_rows

__all__ = ["begin", "begin_once"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

UPDATES = 4
SETTINGS = (
    "run.deterministic=true",
    f"budget.updates={UPDATES}",
    "budget.minutes=60",
    "checkpoint.every=1",
    f"checkpoint.keep_last={UPDATES}",
    "validation.every=2",
    "learner.dynamic_sampling=true",
    "lora.dropout=0.1",
    "warm_start.source=self",
    "warm_start.demonstrations=32",
    "warm_start.demonstrations_per_update=4",
)
TIMES = ("time/", "budget/", "ledger/", "rollout/tokens_per_second", "learner/tokens_per_second", "learner/peak_memory")
"""Beginnings of the metrics that are durations, or depend on them or on what else the machine does."""


def repeatable(folder: Path) -> tuple[list[dict[str, Any]], dict[str, bytes], dict[str, bytes]]:
    """What a run leaves that does not depend on the clock: metrics, samples, its warm start, and the files of all
    its adapters.
    """
    rows = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in read_rows(folder / "metrics.jsonl")]
    files = (folder / "samples").glob("*.jsonl")
    samples = {str(file.relative_to(folder)): re.sub(rb'"seconds": [\d.]+', b"", file.read_bytes()) for file in files}
    adapters = {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("checkpoints/update-*/adapter/*")
    }
    return rows, samples, adapters


def test_run_is_repeated_and_resumed_to_the_bit(begin_once: Callable[..., Run]):
    first = begin_once("first", *SETTINGS).end()
    assert first.code == 0, first.output
    expected = repeatable(first.folder)
    assert [row["update"] for row in expected[0]] == [*range(1, UPDATES + 1)]
    assert sum(name.endswith(".safetensors") for name in expected[2]) == 1 + UPDATES
    assert b"token_ids" in expected[1]["samples/warm-start.jsonl"]
    assert any(row["grad_norm"] > 0 for row in expected[0])

    again = begin_once("again", *SETTINGS).end()
    assert again.code == 0, again.output
    assert repeatable(again.folder) == expected

    killed = begin_once("killed", *SETTINGS)
    gathered = killed.folder / "samples" / "warm-start.jsonl"
    killed.wait_until(gathered.exists, "responses for the warm start")
    killed.end(signal.SIGKILL)
    killed = begin_once("killed", *SETTINGS)
    killed.wait_for_update(2)
    killed.end(signal.SIGKILL)
    resumed = begin_once("killed", *SETTINGS).end()
    assert resumed.code == 0, resumed.output
    assert repeatable(resumed.folder) == expected

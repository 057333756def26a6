"""The real package of the extra `trackers`, without any server."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"update": update, "version": update, "reward/mean": update / 8, "pass@1": 0.5} for update in range(1, 6)]

SAMPLES = [{"prompt": "3 + 4", "response": "7", "status": "correct", "gold": "7", "tokens": 1}]

SUMMARY = {"status": "completed", "updates": 5, "events": [{"update": 2, "event": "low", "detail": "disk"}]}

BLOCK = 2**15

PROCESS = """
import json, sys
from pathlib import Path
from actors.tracking.trackers import Identity, make_tracking
folder, rows, samples, summary = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
shown = make_tracking(["wandb"], Identity("abcdef0123456789", "mine", folder, {"lora": {"rank": 8}}))
shown.begin(rows[0]["update"])
for row in rows:
    shown.scalars(row["update"], row)
shown.samples("update-000003", 3, samples)
shown.end(summary, 60.0)
troubles = shown.troubles()
assert not troubles, troubles
"""


def show(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Log rows as a process of a run does."""
    given = map(json.dumps, (rows, SAMPLES, SUMMARY))
    command = [sys.executable, "-c", PROCESS, str(folder), *given]
    subprocess.run(command, env={**os.environ, "WANDB_MODE": "offline"}, check=True, timeout=240)


def records(log: bytes) -> Iterator[bytes]:
    """Yield the records of a wandb file, which is a LevelDB log after seven bytes."""
    place, parts = 7, b""
    while place + 7 <= len(log):
        if (left := BLOCK - place % BLOCK) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", log[place : place + 7])
        parts += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="pip install 'microbudget-rl[trackers]'")
    from wandb.proto import wandb_internal_pb2

    show(tmp_path, ROWS[:3])
    show(tmp_path, ROWS[3:])
    history: list[dict[str, Any]] = []
    ids = set()
    for file in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                history.append(
                    {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                )
    assert ids == {"abcdef0123456789"}
    rows = [{key: row[key] for key in ROWS[0]} for row in history if "reward/mean" in row]
    assert sorted(rows, key=lambda row: row["update"]) == ROWS

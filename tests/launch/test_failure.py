import json
import subprocess
import sys
from pathlib import Path

from launch.failure import write_failure


def test_summary_has_what_the_folder_still_tells(tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text('{"spent_s": 12.5}')
    (tmp_path / "events.jsonl").write_text('{"update": 1, "event": "a", "detail": "b"}\n{"upd')
    (tmp_path / "checkpoints" / "update-000007").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest").symlink_to("update-000007")
    summary = write_failure(tmp_path, 600.0, "the coordinator died")
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["updates"], summary["spent_s"]) == ("failed", 7, 12.5)
    assert [event["event"] for event in summary["events"]] == ["a"]


def test_process_that_outlives_its_budget_ends_itself(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from launch import run;"
        "from tests.actors.test_coordinator_actor import make_request;"
        "run.LATE_S = 0.1; run.end_with_budget(make_request(Path(sys.argv[1]), seconds=0.1)); time.sleep(600)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120)
    assert done.returncode == 1
    assert "something hangs" in json.loads((tmp_path / "summary.json").read_text())["reason"]

import json
from dataclasses import replace
from pathlib import Path

from launch.reporting.history import read_run
from launch.reporting.tables import settings, sources
from tests.run_folders import write_run


def test_each_source_of_a_mixture_has_a_row(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", updates=8)
    rows = [
        {"update": update, "version": update, "source/a/groups": 2.0, "source/a/pass_rate": rate}
        for update, rate in enumerate([0.2, 0.4, 0.5, 0.5, 0.5, 0.6, 0.7, 0.9], start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    mixture = [{"source": f"file:x/{name}.csv", "weight": 2.0, "name": ""} for name in "ab"]
    run = read_run(folder)
    mixed = replace(run, config={**run.config, "data.source": "", "data.mixture": mixture})
    change = "30.0\N{NO-BREAK SPACE}% → 80.0\N{NO-BREAK SPACE}%"
    assert [row[:4] for row in sources(mixed).body] == [
        ("a", "2", "16", change),
        ("b", "2", "0", change.replace("30", "0").replace("80", "0")),
    ]
    assert settings(mixed)["data"] == "file:x/a.csv + file:x/b.csv"
    assert not sources(run)

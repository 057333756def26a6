"""The script that starts a cluster's nodes, with Ray replaced by a recorder."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]

RECORD = """#!/bin/sh
echo "$(basename "$0") $*, auth $RAY_AUTH_MODE, cleanup $RAY_process_group_cleanup_enabled" >> "$RECORD"
[ "$1" = get-auth-token ] && mkdir -p ~/.ray && echo secret > ~/.ray/auth_token
exit 0
"""


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """Runs the script in a project whose set-up is done. Returns its exit code, what it said, and what it did."""
    launch, programs, record = tmp_path / "project/launch", tmp_path / "project/.venv/bin", tmp_path / "record"
    for made in (launch, programs, tmp_path / "home"):
        made.mkdir(parents=True)
    shutil.copy(ROOT / "launch/node.sh", launch)
    for path in (launch / "setup.sh", programs / "ray"):
        path.write_text(RECORD)
        path.chmod(0o755)

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        record.write_text("")
        done = subprocess.run(
            ["bash", launch / "node.sh", *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), "RECORD": str(record)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr, record.read_text().splitlines()

    return run


def test_head_makes_the_secret_and_further_nodes_need_it(
    node: Callable[..., tuple[int, str, list[str]]], tmp_path: Path
):
    code, said, did = node("10.0.0.1:6379")
    assert (code, len(did)) == (2, 1)
    assert "auth_token is missing" in said
    assert "iptables" in said
    code, _, did = node("head", "--port=6379")
    assert code == 0
    assert did[1].startswith("ray get-auth-token --generate")
    assert did[2] == "ray start --head --dashboard-host=127.0.0.1 --port=6379, auth token, cleanup 1"
    assert (tmp_path / "home/.ray").stat().st_mode & 0o777 == 0o700
    assert len(node("head")[2]) == 2  # once
    code, _, did = node("10.0.0.1:6379", "--num-gpus=1")
    assert (code, did[-1]) == (0, "ray start --address=10.0.0.1:6379 --num-gpus=1, auth token, cleanup 1")

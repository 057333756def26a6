"""The scripts that start clusters, with Ray and Slurm replaced by recorders."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

RECORD = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
"""

RAY = """#!/bin/sh
echo "ray $*, auth $RAY_AUTH_MODE, cleanup $RAY_process_group_cleanup_enabled" >> "$RECORD"
case "$1" in
    status)
        grep -q 'ray start --head' "$RECORD" || exit
        [ "$SLURM_JOB_NUM_NODES" = 1 ] || grep -q '^srun' "$RECORD" || exit  # nobody else has joined yet
        echo Active: && printf ' 1 node_%s\\n' $NODES && echo Pending:
        ;;
    get-auth-token) mkdir -p ~/.ray; echo secret > ~/.ray/auth_token ;;
esac
"""

PYTHON = """#!/bin/sh
echo "python $*, cluster $RAY_ADDRESS" >> "$RECORD"
[ "$1" = -m ] && exit 0
if [ -n "$ENDLESS" ]; then
    trap 'echo stopped >> "$RECORD"; exit 143' TERM
    echo started > "$RECORD.started"
    while :; do sleep 0.05; done
fi
exit ${CODE:-0}
"""


class Site:
    """A copy of the scripts in a project whose set-up is done, on a machine with Slurm's commands."""

    def __init__(self, folder: Path) -> None:
        self.project, self.bin, self.home, self.record = (
            folder / name for name in ("project", "bin", "home", "record")
        )
        for made in (self.project / "launch", self.project / ".venv" / "bin", self.bin, self.home):
            made.mkdir(parents=True)
        for name in ("node.sh", "slurm.sh"):
            shutil.copy(ROOT / "launch" / name, self.project / "launch")
        for path, text in {
            self.project / "launch/setup.sh": RECORD,
            self.project / ".venv/bin/ray": RAY,
            self.project / ".venv/bin/python": PYTHON,
            self.bin / "srun": RECORD,
            self.bin / "hostname": '#!/bin/sh\n[ "$1" = -I ] && echo "10.0.0.1 fd00::1" || echo first\n',
        }.items():
            path.write_text(text)
            path.chmod(0o755)

    def start(self, script: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        self.record.write_text("")
        return subprocess.Popen(
            ["bash", f"launch/{script}", *arguments],
            cwd=self.project,
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.home), "RECORD": str(self.record)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        """Exit code, what it said, and what it did."""
        done = self.start(script, *arguments, **environment)
        said, _ = done.communicate(timeout=240)
        return done.returncode, said, self.record.read_text().splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def slurm(nodes: int, **environment: str) -> dict[str, str]:
    return {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": str(nodes), "PAUSE_S": "0.01", "NODES": "a b"} | environment


def test_head_makes_the_secret_and_further_nodes_need_it(site: Site) -> None:
    code, said, did = site.run("node.sh", "10.0.0.1:6379")
    assert (code, len(did)) == (2, 2)
    assert "auth_token" in said
    code, _, did = site.run("node.sh", "head", "--port=6379")
    assert code == 0
    assert did[1] == "python -m launch.hardware.network, cluster "
    assert did[2].startswith("ray get-auth-token --generate")
    assert did[3] == "ray start --head --dashboard-host=127.0.0.1 --port=6379, auth token, cleanup 1"
    assert (site.home / ".ray").stat().st_mode & 0o777 == 0o700
    assert len(site.run("node.sh", "head")[2]) == 3  # once
    code, _, did = site.run("node.sh", "10.0.0.1:6379", "--num-gpus=1")
    assert (code, did[-1]) == (0, "ray start --address=10.0.0.1:6379 --num-gpus=1, auth token, cleanup 1")


@pytest.mark.parametrize(("nodes", "present", "code"), [(1, "a", 0), (2, "a b", 3), (3, "a b", 1)])
def test_job_runs_once_all_its_nodes_have_joined_and_has_the_runs_exit_code(
    nodes: int, present: str, code: int, site: Site
) -> None:
    ended, said, did = site.run("slurm.sh", "conf=quickstart", **slurm(nodes, NODES=present, CODE=str(code)))
    assert ended == code, said
    assert any(line.startswith("ray start --head --dashboard-host=127.0.0.1 --port=20007") for line in did)
    asked, more = [line for line in did if line.startswith("srun")], nodes - 1
    assert [f"--nodes={more} --ntasks={more} --exclude=first" in line for line in asked] == [True] * (nodes > 1)
    assert all(line.endswith("10.0.0.1:20007") for line in asked)
    assert ("python launch/run.py conf=quickstart, cluster 10.0.0.1:20007" in did) == (nodes < 3)
    assert ("not all of 3 nodes" in said) == (nodes == 3)


def test_end_of_the_jobs_time_ends_the_run_gracefully(site: Site) -> None:
    job = site.start("slurm.sh", "conf=quickstart", **slurm(1, NODES="a", ENDLESS="1"))
    while not site.record.with_name("record.started").exists():
        os.sched_yield()
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 143, said
    assert "stopped" in site.record.read_text().splitlines()

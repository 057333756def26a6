"""The set-up script with Python and pip replaced by a recorder: what it does in which order, and what it says."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/sh
# Stands for every Python: records its arguments, makes environments, fails where the file `fail` says so.
echo "$*" >> "$RECORD"
case "$*" in *"$(cat "$RECORD.fail" 2>/dev/null || echo nothing)"*) echo "$FAILURE"; exit 1 ;; esac
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    echo "VIRTUAL_ENV=$PWD/$3" > "$3/bin/activate"
fi
"""


class Machine:
    """A copy of the project's set-up beside a `bin` folder that is searched for programs first."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.bin = folder / "bin"
        self.record = folder / "record"
        self.failure = ""
        (self.project / "launch").mkdir(parents=True)
        shutil.copy(ROOT / "pyproject.toml", self.project)
        shutil.copy(ROOT / "launch/setup.sh", self.project / "launch")
        shutil.copytree(ROOT / "launch/locks", self.project / "launch/locks")
        self.bin.mkdir()
        self.program("python3.11", PYTHON)
        self.program("nvidia-smi", "#!/bin/sh\nexit 1\n")
        self.program("df", "#!/bin/sh\necho; echo disk 1 1 99999999 1 /\n")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def fail(self, part: str, saying: str = "") -> None:
        """Let commands of Python that contain `part` fail; all succeed again with an empty `part`."""
        self.record.with_name("record.fail").write_text(part or "nothing")
        self.failure = saying

    def setup(self, *arguments: str) -> tuple[int, str, list[str]]:
        """Exit code, everything printed, and the commands Python was given, checks of its version left out."""
        self.record.write_text("")
        environment = {
            **os.environ,
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "RECORD": str(self.record),
            "FAILURE": self.failure,
        }
        done = subprocess.run(
            ["bash", "launch/setup.sh", *arguments],
            cwd=self.project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        commands = [line for line in self.record.read_text().splitlines() if not line.startswith("-c import sys")]
        return done.returncode, done.stdout, commands


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def pip_calls(commands: list[str]) -> list[str]:
    return [command for command in commands if command.startswith("-m pip install")]


@pytest.mark.parametrize("script", ["setup.sh", "quickstart.sh", "test.sh", "node.sh", "slurm.sh", "../.ci/run"])
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / "launch" / script], check=True)


def test_first_call_installs_and_the_second_only_looks_for_the_model(machine: Machine) -> None:
    code, _, commands = machine.setup()
    assert code == 0
    torch, everything = pip_calls(commands)
    assert torch.endswith("torch==2.13.0+cpu")
    assert everything.endswith("--constraint launch/locks/cpu.txt --editable .[cpu]")
    assert commands[-2:] == ["-m learner.cpu_adam", "-m launch.embedded"]

    assert machine.setup() == (0, "", ["-m launch.embedded"])


def test_torch_alone_is_asked_of_pytorchs_index_when_pip_finds_it_nowhere_else(machine: Machine) -> None:
    machine.fail("bar off torch==", "ERROR: No matching distribution found")
    code, _, commands = machine.setup()
    assert code == 0
    _, torch, everything = pip_calls(commands)
    assert torch.endswith("--no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu")
    assert "index-url" not in everything


def test_nvidia_driver_picks_the_cuda_extra(machine: Machine) -> None:
    machine.program("nvidia-smi", "#!/bin/sh\nexit 0\n")
    _, _, commands = machine.setup()
    (everything,) = pip_calls(commands)
    assert everything.endswith("--constraint launch/locks/cuda.txt --editable .[cuda]")


@pytest.mark.parametrize("extra", ["cpu", "cuda"])
def test_lock_has_a_version_of_everything_that_is_asked_for(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"][extra])]
    locked = [
        Requirement(line)
        for line in (ROOT / "launch" / "locks" / f"{extra}.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    versions = {
        canonicalize_name(each.name): next(iter(each.specifier)).version
        for each in locked
        if each.marker is None or each.marker.evaluate()
    }
    for each in asked:
        if each.name != "pip":  # any will do, and `pip freeze` leaves it out
            assert each.specifier.contains(versions[canonicalize_name(each.name)]), each


@pytest.mark.parametrize(
    ("driver", "capabilities", "said"),
    [
        ("570.133.20", "8.6", "NVIDIA's driver here is 570.133.20, and vLLM's builds, which are for CUDA 13, need 580"),
        ("580.65.06", "7.5", "the best card here is of compute capability 7.5"),
        ("580.65.06", "7.5\\n8.6", ""),
        ("595.10", "10.0", ""),
        ("595.10", "[N/A]", ""),
    ],
)
def test_cards_that_could_not_be_used_are_refused_before_anything_is_installed(
    machine: Machine, driver: str, capabilities: str, said: str
) -> None:
    answers = f"case $1 in *driver*) echo {driver} ;; *compute*) printf '{capabilities}\\n' ;; esac"
    machine.program("nvidia-smi", f"#!/bin/sh\n{answers}\n")
    code, output, commands = machine.setup()
    assert code == bool(said)
    assert said in output
    assert bool(pip_calls(commands)) != bool(said)


@pytest.mark.parametrize(("library", "accepted"), [("580.82.07", True), ("570.86.10", False)])
def test_a_newer_driver_library_in_front_of_the_systems_is_accepted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, library: str, accepted: bool
) -> None:
    answers = "case $1 in *driver*) echo 535.183.01 ;; *compute*) echo 8.6 ;; esac"
    machine.program("nvidia-smi", f"#!/bin/sh\n{answers}\n")
    compat = machine.project / "compat"
    compat.mkdir()
    (compat / f"libcuda.so.{library}").touch()
    (compat / "libcuda.so.1").symlink_to(f"libcuda.so.{library}")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{compat}")
    code, printed, _ = machine.setup()
    assert (code == 0) == accepted
    assert ("filter hosts for CUDA >= 13.0" in printed) != accepted


def test_dev_is_added_later_and_then_kept(machine: Machine) -> None:
    machine.setup()
    _, _, commands = machine.setup("dev")
    assert pip_calls(commands)[-1].endswith("--editable .[cpu,dev]")
    assert "-m venv .venv" not in commands
    assert machine.setup() == (0, "", ["-m launch.embedded"])


def test_what_an_unfinished_installation_left_is_made_anew(machine: Machine) -> None:
    machine.fail("--editable", "Killed")
    code, _, _ = machine.setup()
    assert code == 1
    leftover = machine.project / ".venv" / "leftover"
    leftover.touch()
    machine.fail("")
    code, _, commands = machine.setup()
    assert code == 0
    assert "-m venv .venv" in commands
    assert not leftover.exists()


def test_an_environment_made_by_the_user_is_used(machine: Machine) -> None:
    subprocess.run(
        [machine.bin / "python3.11", "-m", "venv", ".venv"],
        cwd=machine.project,
        env={**os.environ, "RECORD": str(machine.record)},
        check=True,
    )
    theirs = machine.project / ".venv" / "theirs"
    theirs.touch()
    code, _, _ = machine.setup()
    assert code == 0
    assert theirs.exists()


@pytest.mark.parametrize(
    ("part", "saying", "remedy"),
    [
        ("--editable", "ERROR: [Errno 28] No space left on device", "the disk is full: free some space"),
        ("--editable", "WARNING: Retrying (Retry(total=4)) after connection broken", "check the network"),
        ("--editable", "ERROR: ResolutionImpossible", "pip could not install it"),
        ("import ray", "ImportError: no", "delete .venv and run the same command again"),
        ("ensurepip", "", "apt install python3-venv"),
        ("import sys", "", "no Python 3.11, 3.12 or 3.13 on the PATH: install one"),
    ],
)
def test_each_failure_says_what_to_do(machine: Machine, part: str, saying: str, remedy: str) -> None:
    for name in ("python3.12", "python3.13", "python3"):
        machine.program(name, "#!/bin/sh\nexit 1\n")
    machine.fail(part, saying)
    code, printed, _ = machine.setup()
    assert code == 1
    assert saying in printed
    assert remedy in printed.splitlines()[-1]


def test_too_small_a_disk_is_refused_before_anything_is_made(machine: Machine) -> None:
    machine.program("df", "#!/bin/sh\necho; echo disk 1 1 3145728 1 /\n")
    code, printed, commands = machine.setup()
    assert code == 1
    assert "takes 6 GB" in printed
    assert "has 3 GB free" in printed
    assert "-m venv .venv" not in commands


def test_without_a_compiler_the_set_up_goes_on_and_says_what_follows(machine: Machine) -> None:
    machine.fail("learner.cpu_adam")
    code, printed, _ = machine.setup()
    assert code == 0
    assert "apt install g++" in printed
    assert "AdamW" in printed

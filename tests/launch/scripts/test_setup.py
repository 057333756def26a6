"""The set-up script with Python and pip replaced by a recorder: its order, and its sentences."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.malformed.conftest import files

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]

PYTHON = """#!/bin/sh
# Stands for every Python: records its arguments, makes environments, fails where the file `fail` says so.
echo "$*" >> "$RECORD"
case "$*" in *"$(cat "$RECORD.fail" 2>/dev/null || echo nothing)"*) exit 1 ;; esac
case "$*" in *"pip config list"|*"pip index"*) cat "$RECORD.$3" 2>/dev/null ;; esac
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    echo "VIRTUAL_ENV=$PWD/$3" > "$3/bin/activate"
fi
"""


class Machine:
    """A copy of the project's set-up beside a `bin` folder that is searched for programs first, and without a GPU."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.bin = folder / "bin"
        self.record = folder / "record"
        (self.project / "launch").mkdir(parents=True)
        shutil.copy(ROOT / "pyproject.toml", self.project)
        script = (ROOT / "launch/setup.sh").read_text()
        (self.project / "launch/setup.sh").write_text(re.sub("/dev/(?=nvidia)|/usr/lib/(?=wsl/)", f"{folder}/", script))
        shutil.copytree(ROOT / "launch/locks", self.project / "launch/locks")
        self.bin.mkdir()
        (folder / "wsl/lib").mkdir(parents=True)
        self.program("python3.11", PYTHON)
        self.program("nvidia-smi", "#!/bin/sh\nexit 1\n")
        self.program("df", "#!/bin/sh\necho; echo disk 1 1 99999999 1 /\n")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def fail(self, part: str) -> None:
        """Let commands of Python that contain `part` fail; all succeed again with an empty `part`."""
        self.record.with_name("record.fail").write_text(part or "nothing")

    def setup(self, *arguments: str) -> tuple[int, str, list[str]]:
        """Exit code, everything printed, and the commands Python was given, checks of its version left out."""
        self.record.write_text("")
        environment = os.environ | {"PATH": f"{self.bin}:/usr/bin:/bin", "RECORD": str(self.record)}
        command = f"bash launch/setup.sh {' '.join(arguments)} 2>&1"
        done = subprocess.run(["sh", "-c", command], cwd=self.project, env=environment, capture_output=True, text=True)
        commands = [line for line in self.record.read_text().splitlines() if not line.startswith("-c import sys")]
        return done.returncode, done.stdout, commands


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Machine(tmp_path)


def pip_calls(commands: list[str]) -> list[str]:
    return [line for line in commands if line.startswith("-m pip install") and not line.endswith(" uv")]


def test_first_call_installs_and_the_second_only_looks_for_the_model(machine: Machine):
    code, _, commands = machine.setup()
    assert code == 0
    assert pip_calls(commands)[-1].endswith("--constraint launch/locks/cpu.txt --editable .[cpu]")
    assert {"-m microbudget_rl.learner.cpu_adam", "-m microbudget_rl.launch.bundled"} < set(commands)
    assert machine.setup() == (0, "", ["-m microbudget_rl.launch.bundled"])

    _, _, commands = machine.setup("dev")  # is added later and then kept
    assert pip_calls(commands)[-1].endswith("--editable .[cpu,dev]")
    assert "-m venv .venv" not in commands
    assert machine.setup() == (0, "", ["-m microbudget_rl.launch.bundled"])

    project = machine.project / "pyproject.toml"
    project.write_text(project.read_text().replace("vllm_plugin:register", "vllm_plugin:another"))
    _, _, commands = machine.setup()  # vLLM would only log an entry point that is gone
    assert pip_calls(commands)[-1].endswith("--editable .[cpu,dev]")


def test_a_clone_without_links_is_refused(machine: Machine):
    (machine.project / "microbudget_rl").mkdir()
    (machine.project / "microbudget_rl" / "conf").write_text("../conf")  # as git and unzip write a link as a file
    code, said, commands = machine.setup()
    assert (code, "core.symlinks" in said, commands) == (2, True, [])


@pytest.mark.parametrize("extra", ["cpu", "cuda"])
def test_lock_has_a_version_of_every_requirement(extra: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in (*project["dependencies"], f"{project['name']}[{extra}]")]
    for each in asked:
        if each.name == project["name"]:  # an extra, which may include others
            asked += [Requirement(line) for one in each.extras for line in project["optional-dependencies"][one]]
    lines = (ROOT / "launch" / "locks" / f"{extra}.txt").read_text().splitlines()
    locked = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {
        canonicalize_name(each.name): next(iter(each.specifier)).version
        for each in locked
        if each.marker is None or each.marker.evaluate()
    }
    for each in asked:
        if each.name not in (project["name"], "pip"):  # of pip any works, and `pip freeze` leaves it out
            assert each.specifier.contains(versions[canonicalize_name(each.name)]), each


@pytest.mark.parametrize(
    ("driver", "capability", "said"),
    [("570.133.20", "8.6", "570.133.20"), ("580.65.06", "7.5", "compute capability 7.5"), ("580.65.06", "8.6", "")],
)
def test_gpus_that_could_not_be_used_are_refused_before_anything_is_installed(
    machine: Machine, driver: str, capability: str, said: str, tmp_path: Path
):
    """The tool is where it is under WSL2, on no PATH of root."""
    machine.program("nvidia-smi", f"#!/bin/sh\ncase $1 in *driver*) echo {driver} ;; *) echo {capability} ;; esac\n")
    (machine.bin / "nvidia-smi").rename(tmp_path / "wsl/lib/nvidia-smi")
    code, output, commands = machine.setup()
    assert code == bool(said)
    assert said in output
    installed = [call.endswith("--constraint launch/locks/cuda.txt --editable .[cuda]") for call in pip_calls(commands)]
    assert installed == ([] if said else [True])


@pytest.mark.parametrize("file", ["nvidia3", "wsl/lib/libcuda.so.1"])
def test_a_gpu_whose_tool_is_hidden_gets_no_cpu_build_unasked(
    file: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As in a container with NVIDIA_DRIVER_CAPABILITIES=compute. A CPU build that was asked for once is kept."""
    (tmp_path / file).touch()
    code, output, commands = machine.setup()
    assert (code, commands) == (1, [])
    assert "NVIDIA_DRIVER_CAPABILITIES" in output
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.setup()[0] == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert machine.setup() == (0, "", ["-m microbudget_rl.launch.bundled"])


def test_an_unfinished_environment_is_made_anew(machine: Machine):
    machine.fail("--editable")
    assert machine.setup()[0] == 1
    leftover = machine.project / ".venv/lib/leftover"
    leftover.parent.mkdir()
    leftover.touch()
    machine.fail("")
    code, _, commands = machine.setup()
    assert code == 0
    assert "-m venv .venv" in commands
    assert not leftover.exists()
    (machine.project / ".venv/setup.stamp").unlink()  # as if killed while Adam was compiled
    code, _, commands = machine.setup()
    assert (code, "-m venv .venv" in commands) == (0, False)


def make_theirs(machine: Machine) -> None:
    make = [machine.bin / "python3.11", "-m", "venv", ".venv"]
    subprocess.run(make, cwd=machine.project, env=os.environ | {"RECORD": str(machine.record)}, check=True)


def put_sources_into_ours(machine: Machine) -> None:
    """Where `pip install -e git+…` puts them, before the project is moved, for which `.venv` has to be made anew."""
    assert machine.setup()[0] == 0
    (machine.project / ".venv/src").mkdir()
    (machine.project / ".venv/src/precious.py").touch()
    machine.project = machine.project.rename(machine.project.with_name("moved"))


@pytest.mark.parametrize(
    "theirs",
    [make_theirs, put_sources_into_ours, lambda machine: (machine.project / ".venv").symlink_to("/nowhere")],
)
def test_what_was_not_made_here_is_refused_and_stays(machine: Machine, theirs: Callable[[Machine], object]):
    theirs(machine)
    before = files(machine.project)
    code, output, commands = machine.setup()
    assert (code, output.count("\n"), commands) == (2, 1, [])
    assert ".venv" in output
    assert files(machine.project) == before


def test_unknown_words_are_refused_before_anything_is_done(machine: Machine):
    code, output, commands = machine.setup("--dev")
    assert (code, output.count("\n"), commands) == (2, 1, [])
    assert not (machine.project / ".venv").exists()


def test_a_silent_package_index_ends_the_setup(machine: Machine):
    machine.program("timeout", "#!/bin/sh\nexit 124\n")  # pip would wait for ever
    code, output, commands = machine.setup()
    assert (code, pip_calls(commands)) == (1, [])
    assert "a package index does not answer" in output


def test_torch_comes_from_pytorchs_index_only_if_it_is_nowhere_else(machine: Machine):
    _, _, commands = machine.setup()
    torch, everything = pip_calls(commands)
    assert torch.endswith("--no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu")
    assert "index-url" not in everything
    machine.record.with_name("record.index").write_text("Available versions: 2.14.0, 2.13.0+cpu, 2.13.0")
    (machine.project / ".venv/setup.stamp").unlink()
    (everything,) = pip_calls(machine.setup()[2])
    assert everything.endswith("--editable .[cpu]")


FROM_FILE = (
    "global.timeout='3'\nglobal.extra-index-url='https://more'\nglobal.find-links='/a'\nglobal.constraint='/file.txt'"
)


@pytest.mark.parametrize(
    ("configuration", "works", "links"),
    [
        (FROM_FILE + "\ninstall.find-links='/b\\n/c'", True, "/b,/c"),
        (":env:.find-links='/d'\n" + FROM_FILE, True, "/d"),
        (FROM_FILE, False, "/a"),
        (FROM_FILE + "\nglobal.only-binary=':all:'", True, None),
    ],
)
def test_uv_installs_from_where_pip_would_and_pip_where_uv_cannot(
    machine: Machine, configuration: str, works: bool, links: str | None
):
    assert machine.setup()[0] == 0
    (machine.project / ".venv/setup.stamp").unlink()
    machine.record.with_name("record.config").write_text(configuration + "\n")
    uv = machine.project / ".venv/bin/uv"
    uv.write_text(f'#!/bin/sh\necho "uv $UV_EXTRA_INDEX_URL $UV_FIND_LINKS $*" >>"$RECORD"\nexit {int(not works)}\n')
    uv.chmod(0o755)
    _, _, commands = machine.setup()
    calls = [line for line in commands if line.startswith("uv")]
    assert bool(pip_calls(commands)) == (not (works and links))
    assert all(line.startswith(f"uv https://more {links} ") and "--constraint /file.txt " in line for line in calls)
    assert bool(calls) == bool(links)

"""The doctor on this machine and behind a stand-in for the driver."""

import asyncio
import io
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import Problem, ProblemSet, Status
from microbudget_rl.actors.runtime import ray_session
from microbudget_rl.conf.command import PlainConsole
from microbudget_rl.conf.load import load
from microbudget_rl.launch import doctor
from microbudget_rl.launch.checkup.archive import LARGEST, TAIL, Archive
from microbudget_rl.launch.checkup.measurement import DOCTOR, keep_measured
from microbudget_rl.launch.checkup.signal import Sampled
from microbudget_rl.launch.doctor import main
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.plan.measurements import known, recall
from microbudget_rl.launch.plan.plan import Plan, make_plan
from tests.fakes import make_problem
from tests.launch.checkup.test_measurement import MEASURED
from tests.launch.checkup.test_signal import row


@pytest.fixture
def here(tmp_path: Path) -> list[str]:
    """The command, with a folder for runs that does not exist yet, as on a rented machine."""
    return ["conf=quickstart", "device=cpu", "model.dtype=bfloat16", f"run.folder={tmp_path / 'runs'}"]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: " ".join("".join(capsys.readouterr()).split())


def test_without_measuring_it_shows_the_plan_or_its_refusal(here: list[str], said: Callable[[], str]) -> None:
    assert main([*here, "measure=false"]) == 0
    text = said()
    assert text.startswith("python launch/doctor.py conf=quickstart device=cpu")
    assert "good machine:" in text
    assert "measured on this machine yet" in text
    assert main([*here, "learner.world_size=1000", "measure=false"]) == 1
    assert "bad plan: learner.world_size=1000" in said()


def test_a_measurement_is_kept_and_an_engine_that_does_not_start_is_a_finding(
    here: list[str], monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    def fail(*_: object) -> None:
        raise ActorDied("no kernel image is available")

    monkeypatch.setattr(doctor, "calibrate", lambda plan, *_: keep_measured(MEASURED, plan))
    assert main(here) == 0
    assert f"a measurement here: {DOCTOR}" in said()
    assert recall(load(here), detect("cpu")).generate == 2.0
    monkeypatch.setattr(doctor, "calibrate", fail)
    assert main(here) == 1
    assert "bad measuring: no kernel image is available" in said()


@pytest.mark.parametrize(("status", "verdict"), [(Status.WRONG, "worth it"), (Status.CORRECT, "too easy")])
def test_the_exit_code_says_whether_it_is_worth_it(
    status: Status, verdict: str, here: list[str], monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    """Half of the samples are right, or all of them."""

    async def sample(_plan: Plan, _path: str, problems: Sequence[Problem], *rest: Any) -> Sampled:
        asked, _, go_on = rest
        assert asked.minutes == 2
        for count in (24, 48, 96, 99):
            found = Sampled(problems[:count], [[row(), row(status)] * 8] * count, 1.0)
            if not go_on(found):
                return found
        raise AssertionError("it is certain by then")

    train, code = tuple(map(make_problem, range(99))), int(verdict != "worth it")
    monkeypatch.setattr(doctor, "find_and_check", lambda config: (config, "", ProblemSet(train, (), {}), ()))
    monkeypatch.setattr(doctor, "on_ray", lambda _, work: asyncio.run(work(Path())))
    monkeypatch.setattr(doctor, "sample", sample)
    assert main([*here, "measure=signal", "signal.minutes=2"]) == code
    text = said()
    assert "24 problems after" in text
    assert f"{verdict.capitalize()}: " in text
    (kept,) = known(load(here)).signals.values()
    assert (kept.problems, kept.verdict, bool(kept.warning)) == (96, verdict, bool(code))


def archived(here: list[str]) -> dict[str, str]:
    """Return the files of the archive by name."""
    [path] = Path(load(here).run.folder).glob("doctor-*.tar.gz")
    assert path.stat().st_size < LARGEST
    with tarfile.open(path) as tar:
        return {each.name: (tar.extractfile(each) or io.BytesIO()).read().decode() for each in tar}


@pytest.mark.parametrize("broken", ["check", "describe_host", "carry_out_run", ""])
def test_a_phase_that_fails_leaves_an_archive_and_stops_no_other(
    broken: str, here: list[str], monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    carried_out = []

    def phase(name: str) -> Callable[..., None]:
        def work(*_: object) -> None:
            carried_out.append(name)
            if name == broken:
                raise RuntimeError(f"{name} at 10.1.2.3")

        return work

    phases = ["check", "describe_host", "carry_out_run"]
    for name in phases:
        monkeypatch.setattr(doctor, name, phase(name))
    assert main([*here, "report=true"]) == bool(broken)
    assert carried_out == phases
    assert ("failed: RuntimeError" in said()) == bool(broken)
    errors = [text for name, text in archived(here).items() if name.endswith("-error.txt")]
    assert len(errors) == bool(broken)
    assert all("Traceback" in text and f"{broken} at …" in text for text in errors)


def test_an_archive_is_small_and_keeps_the_ends_of_logs(tmp_path: Path) -> None:
    rng, archive = random.Random(0), Archive(tmp_path / "doctor-x.tar.gz", PlainConsole(record=True))
    for number in range(30):
        (tmp_path / f"{number}.log").write_text(rng.randbytes(TAIL).hex() + f" the end of {number}")
    archive.add_logs("logs", tmp_path)
    archive.write()
    files = archived([f"run.folder={tmp_path}", "conf=quickstart"])
    assert len(files) == 30
    assert all(text.endswith(f" the end of {Path(name).stem}") for name, text in files.items())


def test_logs_of_failed_work_stay_unless_they_are_kept_elsewhere(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    @contextmanager
    def session(_: object, __: object, folder: Path, **___: object) -> Iterator[None]:
        (ray_session.make_temporary(folder) / ray_session.RAY / "session_latest" / "logs").mkdir(parents=True)
        yield

    async def fail(_: Path) -> None:
        raise ActorDied("no kernel image is available")

    monkeypatch.setattr(ray_session, "ray_session", session)
    kept = list[Path | None]()
    for keep in (None, kept.append):
        with pytest.raises(ActorDied):
            doctor.on_ray(make_plan(load(["conf=quickstart", "model.dtype=float32"]), detect("cpu")), fail, keep)
    left = Path(said().rpartition(" ")[2])
    assert left.is_dir()
    shutil.rmtree(left.parents[2])
    assert kept[0]
    assert not kept[0].exists()


@pytest.mark.parametrize(
    "measures", [["measure=maybe"], ["report=maybe"], ["measure=true", "measure=signal"], ["signal.minutes=0"]]
)
def test_bad_input_is_refused(measures: list[str], here: list[str], said: Callable[[], str]) -> None:
    assert main([*here, *measures]) == 2
    assert said().startswith(f"doctor.py: {measures[0]}")


@pytest.mark.slow
def test_real_actors_are_measured_and_the_next_plan_knows(here: list[str], tmp_path: Path) -> None:
    def run(program: str, *more: str) -> str:
        command = [sys.executable, "-m", f"launch.{program}", *here, *more]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        print(done.stdout)
        return " ".join(done.stdout.split())

    text = run("doctor")
    rates = ("generates", "learns from")
    for part in (*rates, f"a measurement here: {DOCTOR}"):
        assert part in text
    found = recall(load(here), detect("cpu"))
    assert found.of == DOCTOR
    assert (found.generate, found.learn) != (1.0, 1.0)
    assert f"corrected by a measurement here: {DOCTOR}" in run("run", "plan=true")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["measurements.json"]

"""The doctor on this machine and behind a stand-in for the driver."""

import asyncio
import io
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock, call

import pytest

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import Problem, ProblemSet, Status
from microbudget_rl.actors.runtime import ray_session
from microbudget_rl.conf.command import PlainConsole
from microbudget_rl.conf.load import load
from microbudget_rl.launch import doctor
from microbudget_rl.launch.checkup import archive
from microbudget_rl.launch.checkup.archive import LARGEST, Archive, kill_engine
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


def test_without_measuring_it_shows_the_plan_or_its_refusal(here: list[str], said: Callable[[], str]):
    assert main([*here, "measure=false"]) == 0
    text = said()
    assert text.startswith("python launch/doctor.py conf=quickstart device=cpu")
    assert "good machine:" in text
    assert "measured on this machine yet" in text
    assert main([*here, "learner.world_size=1000", "measure=false"]) == 1
    assert "bad plan: learner.world_size=1000" in said()


def test_a_measurement_is_kept_and_an_engine_that_does_not_start_is_a_finding(
    here: list[str], monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
):
    monkeypatch.setattr(doctor, "calibrate", lambda plan, *_: keep_measured(MEASURED, plan))
    assert main(here) == 0
    assert f"a measurement here: {DOCTOR}" in said()
    assert recall(load(here), detect("cpu")).generate == 2.0
    monkeypatch.setattr(doctor, "calibrate", Mock(side_effect=ActorDied("no kernel image is available")))
    assert main(here) == 1
    assert "bad measuring: no kernel image is available" in said()


@pytest.mark.parametrize(("status", "verdict"), [(Status.WRONG, "worth it"), (Status.CORRECT, "too easy")])
def test_the_exit_code_says_whether_it_is_worth_it(
    status: Status, verdict: str, here: list[str], monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
):
    """Half of the samples are right, or all of them."""

    async def sample(_plan: Plan, _path: str, problems: Sequence[Problem], *rest: Any) -> Sampled:
        asked, _, go_on = rest
        assert asked.minutes == 2
        for count in (24, 48, 96, 99):
            found = Sampled(problems[:count], [[row(), row(status)] * 8] * count, 1.0)
            if not go_on(found):
                return found
        raise AssertionError("it is certain by then")

    train, code = tuple(map(make_problem, range(99))), 3 * (verdict != "worth it")
    monkeypatch.setattr(doctor, "find_and_check", lambda config: (config, "", ProblemSet(train, (), {}), ()))
    monkeypatch.setattr(doctor, "on_ray", lambda _, work: asyncio.run(work(Path())))
    monkeypatch.setattr(doctor, "sample", sample)
    assert main([*here, "measure=signal", "signal.minutes=2"]) == code
    text = said()
    assert "24 problems after" in text
    assert f"{verdict.capitalize()}: " in text
    assert ("lowers learner.learning_rate" in text) == (verdict == "worth it")
    (kept,) = known(load(here)).signals.values()
    assert (kept.problems, kept.verdict, bool(kept.warning)) == (96, verdict, bool(code))


def archived(here: list[str]) -> dict[str, str]:
    """Return the files of the archive by name."""
    [path] = Path(load(here).run.folder).glob("doctor-*.tar.gz")
    assert path.stat().st_size < LARGEST
    with tarfile.open(path) as tar:
        return {each.name: (tar.extractfile(each) or io.BytesIO()).read().decode() for each in tar}


@pytest.mark.parametrize("broken", ["describe_host", "carry_out_run", "check"])
def test_a_phase_that_fails_leaves_an_archive_and_stops_no_other(
    broken: str, here: list[str], monkeypatch: pytest.MonkeyPatch
):
    works = Mock(return_value=0)
    monkeypatch.setattr(doctor, "locate", works)
    for name in ("describe_host", "carry_out_run", "check"):
        monkeypatch.setattr(doctor, name, Mock(side_effect=OSError("at 10.1.2.3")) if name == broken else works)
    assert main([*here, "report=true"]) == 1
    assert works.call_count == 3
    assert [text.count("OSError: at …") for name, text in archived(here).items() if "-error" in name] == [1]
    monkeypatch.setattr(doctor, broken, Mock(return_value=3 * (broken == "check")))
    assert main([*here, "report=true"]) == 3 * (broken == "check")


def test_a_kill_that_fails_at_the_end_is_a_warning(here: list[str], monkeypatch: pytest.MonkeyPatch):
    runs = Mock(side_effect=[None, OSError])
    for name, works in (("locate", Mock()), ("carry_out_run", runs), ("check", Mock(return_value=0))):
        monkeypatch.setattr(doctor, name, works)
    assert main([*here, "report=true"]) == 0
    assert (runs.call_count, "doctor/kill-error.txt" in archived(here)) == (2, True)


def test_an_engine_leaves_its_mps_before_it_is_killed(monkeypatch: pytest.MonkeyPatch):
    done = Mock()
    engine = Mock(pid=7, kill=done.kill, **{"name.return_value": "ray::RolloutActo"})
    monkeypatch.setattr("psutil.Process", lambda _: Mock(**{"children.return_value": [engine]}))
    monkeypatch.setattr(archive, "leave_mps", done.leave)
    assert kill_engine(1)
    assert done.mock_calls == [call.leave(7, engine.environ()), call.kill()]


def test_an_archive_is_small_and_keeps_the_ends_of_logs(
    here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("microbudget_rl.launch.checkup.archive.CHARACTERS", 2000)
    made = Archive(tmp_path / "runs/doctor-quickstart.tar.gz", PlainConsole())
    for number in range(10):
        (tmp_path / f"{number}.log").write_text("a line of a log\n" * 100 + f"the end of {number}")
    made.add("logs", tmp_path)
    made.write()
    for name, text in archived(here).items():
        assert text == "a line of a log\n" * 11 + f"the end of {Path(name).stem}"


def test_logs_of_failed_work_stay(monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]):
    def session(_: object, __: object, folder: Path, **___: object) -> None:
        (ray_session.make_temporary(folder) / ray_session.RAY / "session_latest" / "logs").mkdir(parents=True)
        raise ActorDied("no kernel image is available")

    monkeypatch.setattr(ray_session, "ray_session", session)
    with pytest.raises(ActorDied):
        doctor.on_ray(make_plan(load(["conf=quickstart", "model.dtype=float32"]), detect("cpu")), AsyncMock())
    left = Path(said().rpartition(" ")[2])
    assert left.is_dir()
    shutil.rmtree(left.parents[2])


@pytest.mark.parametrize("given", ["measure=maybe", "report=maybe", "measure=true measure=signal", "signal.minutes=0"])
def test_bad_input_is_refused(given: str, here: list[str], said: Callable[[], str]):
    assert main([*here, *given.split()]) == 2
    assert said().startswith(f"doctor.py: {given.partition(' ')[0]}")

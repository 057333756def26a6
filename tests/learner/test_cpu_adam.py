import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from deepspeed.ops.op_builder import CPUAdamBuilder
from torch.utils import cpp_extension

from microbudget_rl.learner.cpu_adam import cpu_adam_available, load_compiled, processor

pytestmark = pytest.mark.long


def test_compiled_once_by_one_process_at_a_time_whatever_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, link = tmp_path / "real", tmp_path / "link"
    torchs = root / CPUAdamBuilder.NAME / "lock"
    torchs.parent.mkdir(parents=True)
    torchs.touch()  # a killed process has left it, and torch would wait for ever
    link.symlink_to(root)
    compiled: list[str] = []

    def compile_it(_: object, verbose: bool) -> None:
        descriptor = os.open(torchs, os.O_CREAT | os.O_EXCL)
        time.sleep(0.05)  # in which the others come
        os.close(descriptor)
        torchs.unlink()
        compiled.append(threading.current_thread().name)

    monkeypatch.setattr(CPUAdamBuilder, "load", compile_it)
    monkeypatch.setattr(CPUAdamBuilder, "_loaded_ops", {})
    monkeypatch.setattr(cpp_extension, "_import_module_from_library", lambda *_, **__: None)
    threads = [threading.Thread(target=load_compiled, args=(place,)) for place in (root, link) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1
    assert not torchs.exists()


def test_compilation_that_fails_is_not_taken_for_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tries: list[int] = []
    monkeypatch.setattr(CPUAdamBuilder, "load", lambda *_, **__: tries.append(1) or 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_compiled(tmp_path)
    assert len(tries) == 2


def test_environment_reached_by_another_path_needs_no_compiler(tmp_path: Path):
    if not cpu_adam_available():
        pytest.skip("no C++ compiler here")
    (tmp_path / "link").symlink_to(sys.prefix)
    command = [str(tmp_path / "link/bin/python"), "-m", "learner.cpu_adam"]
    assert subprocess.run(command, env=os.environ | {"CXX": "false"}, check=False).returncode == 0


def test_a_processor_of_another_kind_has_another_name(tmp_path: Path):
    file = tmp_path / "cpuinfo"

    def name(flags: str, clock: int, model: str = "EPYC") -> str:
        one = f"processor : 0\nmodel name : {model}\ncpu MHz : {clock}\nflags : {flags}\n"
        file.write_text(f"{one}\n{one.replace('0', '1')}\n")
        return processor(file)

    assert name("avx2", 2000) == name("avx2", 3000)
    assert len({name("avx2", 2000), name("avx2 avx512f", 2000), name("avx2", 2000, "Xeon")}) == 3

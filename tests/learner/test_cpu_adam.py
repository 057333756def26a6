import os
from pathlib import Path

from learner.cpu_adam import abandoned, processor


def test_a_lock_without_a_process_is_abandoned(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not abandoned(lock)
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL)
    assert not abandoned(lock)
    os.close(descriptor)
    assert abandoned(lock)


def test_a_processor_of_another_kind_has_another_name(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"

    def name(flags: str, clock: int, model: str = "EPYC") -> str:
        one = f"processor : 0\nmodel name : {model}\ncpu MHz : {clock}\nflags : {flags}\n"
        file.write_text(f"{one}\n{one.replace('0', '1')}\n")
        return processor(file)

    assert name("avx2", 2000) == name("avx2", 3000)
    assert len({name("avx2", 2000), name("avx2 avx512f", 2000), name("avx2", 2000, "Xeon")}) == 3

"""DeepSpeed's compiled operators: which are wanted, and whether this machine can have them.

`python -m learner.native` compiles them ahead of time and exits with 1 where that fails.
"""

import logging
import os
import sys
import sysconfig
from pathlib import Path

log = logging.getLogger(__name__)

SHM_COMM = "deepspeed_shm_comm"
"""Name of DeepSpeed's shared-memory collective; its builder class exists on the CPU only."""


def cpu_adam_available() -> bool:
    """Whether DeepSpeed's CPU Adam loads, compiling it if need be (about a minute once, then kept in the environment).

    To be called before `deepspeed.init_distributed`: it also switches off DeepSpeed's shared-memory collective, which
    serves inference only and would be compiled, or fail to be, as soon as a process group starts. False, with the
    reason logged, where there is no C++ compiler or it fails; torch's AdamW does the same steps more slowly.
    """
    import deepspeed
    from deepspeed.ops.op_builder import CPUAdamBuilder
    from torch.utils.cpp_extension import _get_build_directory

    deepspeed.ops.__compatible_ops__[SHM_COMM] = False
    # Compiler flags name the environment's folder: in the cache of the user, which is torch's own choice, two
    # environments would compile anew whenever the other one was used last.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
    scripts = sysconfig.get_path("scripts")  # where ninja is, whether or not the environment is activated
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]
    try:
        lock = Path(_get_build_directory(CPUAdamBuilder.NAME, verbose=False)) / "lock"
        if abandoned(lock):
            lock.unlink(missing_ok=True)
        CPUAdamBuilder().load(verbose=False)
    except Exception as error:  # a compiler fails in many ways, and there is a substitute for all of them
        log.warning("DeepSpeed's CPU Adam does not compile here, torch's slower AdamW takes its place: %s", error)
        return False
    return True


def abandoned(lock: Path) -> bool:
    """Whether a lock of torch's extension loader was left by a process that died, so that all others wait for ever.

    The loader keeps the file open while it holds the lock, so a lock that no process has open belongs to nobody.
    """
    if not lock.exists():
        return False
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.readlink() == lock:
                return False
        except OSError:  # the process ended meanwhile, or belongs to another user
            continue
    return True


if __name__ == "__main__":
    sys.exit(0 if cpu_adam_available() else 1)

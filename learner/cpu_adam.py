"""DeepSpeed's compiled Adam for weights in host memory.

`python -m learner.cpu_adam` compiles it ahead of time and exits with 1 if that fails.
"""

import logging
import os
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from microbudget_rl.actors.storage.files import lock

log = logging.getLogger(__name__)

OF_KIND = ("model name", "flags", "CPU implementer", "CPU part", "Features")
"""Beginnings of the lines of /proc/cpuinfo that tell kinds of CPUs apart, on x86 and on Arm."""


def cpu_adam_available() -> bool:
    """Return whether DeepSpeed's CPU Adam loads. The first call compiles it, in about a minute.

    Without a working C++ compiler the result is False and the reason is logged: torch's AdamW takes the same steps more
    slowly.
    """
    import deepspeed

    # In torch's default, a per-user cache, two environments would recompile whenever the other one was used last.
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR", sys.prefix))
    name = f"torch_extensions-{processor()}-{torch.__version__}-{deepspeed.__version__}-{sys.implementation.cache_tag}"
    if root.name != name:
        os.environ["TORCH_EXTENSIONS_DIR"] = str(root := root / name)
    scripts = sysconfig.get_path("scripts")  # where ninja is, whether or not the environment is activated
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]
    try:
        load_compiled(root)
    except Exception as error:  # a compiler fails in many ways, and there is a fallback for all of them
        log.warning("DeepSpeed's CPU Adam does not compile here; torch's slower AdamW takes its place: %s", error)
        return False
    return True


def load_compiled(root: Path) -> None:
    """Load the module from torch's folder of extensions. Compile it there first, unless another process has done so.

    torch would compile it again for each path by which the environment is reached, since the commands contain the path.
    """
    from deepspeed.ops.op_builder import CPUAdamBuilder
    from torch.utils.cpp_extension import _import_module_from_library

    name = CPUAdamBuilder.NAME
    folder = root / name
    complete = folder / "complete"
    if not complete.exists():
        folder.mkdir(parents=True, exist_ok=True)  # readable for all users of the environment
        descriptor = lock(folder, wait=True)
        assert descriptor is not None  # since it waits
        try:
            if not complete.exists():
                (folder / "lock").unlink(missing_ok=True)  # torch's, of a killed process: the others wait above
                CPUAdamBuilder().load(verbose=False)
                complete.touch()
        finally:
            os.close(descriptor)
    if name not in CPUAdamBuilder._loaded_ops:  # where DeepSpeedCPUAdam looks before it compiles, in deepspeed 0.19.8
        CPUAdamBuilder._loaded_ops[name] = _import_module_from_library(name, folder, is_python_module=True)


def processor(described: Path = Path("/proc/cpuinfo")) -> str:
    """Return a name for this kind of CPU: a volume may move to another kind, on which the compiled code would crash."""
    lines = described.read_text().partition("\n\n")[0].splitlines()
    return sha256("".join(line for line in lines if line.startswith(OF_KIND)).encode()).hexdigest()[:12]


def replay_steps(adam: Any, steps: int) -> None:
    """Step a `DeepSpeedCPUAdam` up to `steps` on a dummy weight, so that a restored run repeats an uninterrupted one.

    It keeps β^step as a running product but computes a power when the count jumps, and the last bits differ.
    """
    group = adam.param_groups[0]
    weight, gradient, first, second = torch.zeros(4, 1).unbind()
    for step in range(1, steps + 1):
        adam.ds_opt_adam.adam_update(
            adam.opt_id, step, 0.0, *group["betas"], group["eps"], 0.0, True, weight, gradient, first, second
        )


if __name__ == "__main__":
    sys.exit(0 if cpu_adam_available() else 1)

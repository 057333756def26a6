"""A test of the tests: breaks of this project's code, each in a copy of it, where a part or a test has to fail."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.conftest import ROOT
from tests.cuda.absent import attempt

ENGINES = "from tests.cuda.engines import ask; ask('RTX3060', ['gsm8k'])"
NAMES = "from tests.cuda.packages import names; names()"
PEAK = "import sys, pytest; sys.exit(pytest.main(['-q', 'tests/learner/test_full_size.py', '-k', '{}']))"
KEPT, RECOMPUTED = PEAK.format("plain"), PEAK.format("recomputed")

SETTINGS, PROJECTION = "actors/rollout/vllm_settings.py", "learner/model/projection.py"
MORE = '"disable_log_stats": True,'
SAVED = "ctx.save_for_backward(x, inner, weight, a, b)"
HALF_A_VECTOR = "ctx.more = rows[:, : len(b) // 2 * (len(b) == x.shape[-1])].clone()"

BREAKS = (
    (ENGINES, SETTINGS, '"max_lora_rank":', '"max_lora_ranks":'),
    (ENGINES, SETTINGS, '"processed_logprobs"', '"raw_logprobs"'),
    (ENGINES, SETTINGS, MORE, f'{MORE} "max_num_batched_tokens": 512,'),
    (ENGINES, SETTINGS, MORE, f'{MORE} "enable_prefix_caching": False,'),
    (ENGINES, SETTINGS, '"enforce_eager": config.rollout.enforce_eager', '"enforce_eager": True'),
    (ENGINES, SETTINGS, '{"hf_overrides": {"head_dtype": "float32"}}', "{}"),
    (ENGINES, SETTINGS, '": share.memory,', '": share.memory + 0.2,'),
    (ENGINES, SETTINGS, '"seed": config.run.seed', '"seed": config.run.seed + 1'),
    (ENGINES, "actors/models/sizes.py", "return min(max(", "return 1 or min(max("),
    (ENGINES, "launch/plan/memory.py", "return self.computes and", "return not self.computes and"),
    (KEPT, PROJECTION, SAVED, f"{SAVED}; {HALF_A_VECTOR}"),
    (RECOMPUTED, "learner/model/policy.py", "if checkpointing:", "if False:"),
    (NAMES, "actors/rollout/shared_weights.py", "settings, 0, 0,", "settings, 0,"),
    (NAMES, "learner/model/model_check.py", "fused_linear_cross_entropy=", "fused_linear_ce="),
    (NAMES, "learner/cpu_adam.py", "load(verbose=", "load(quiet="),
)
"""Breaks: the program that sees each, the file, and its text before and after."""


def seen(wanted: bool, program: str, file: str, before: str, after: str) -> None:
    """Raise unless a program fails, or passes, on a copy of this project with another text in one of its files."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        shutil.copytree(ROOT, project, symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "shared"))
        text = (project / file).read_text()
        if text.count(before) != 1:
            raise ValueError(f"{file} has {text.count(before)} times: {before}")
        (project / file).write_text(text.replace(before, after))
        environment = os.environ | {"PYTHONPATH": str(project)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        if (done.returncode != 0 or '"fault": "' in done.stdout.replace('"fault": ""', "")) != wanted:
            raise ValueError(f"code {done.returncode}: {done.stdout[-200:]}")


def ask() -> None:
    for program in (ENGINES, NAMES, KEPT, RECOMPUTED):
        attempt("nothing broken", program, partial(seen, False, program, SETTINGS, MORE, MORE))
    for what in BREAKS:
        attempt("breaks that are seen", " → ".join(what[2:]), partial(seen, True, *what))

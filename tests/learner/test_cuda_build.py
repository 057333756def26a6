"""The learner's passes with the CUDA builds of its libraries, in an environment that MICROBUDGET_CUDA_PYTHON names."""

import json
import os
import subprocess

import pytest

from tests.learner.full_size import RECIPES

PYTHON = os.environ.get("MICROBUDGET_CUDA_PYTHON")


@pytest.mark.slow
@pytest.mark.skipif(PYTHON is None, reason="MICROBUDGET_CUDA_PYTHON names no environment")
def test_a_pass_on_a_card_meets_no_other_device_or_dtype() -> None:
    assert PYTHON
    command = [PYTHON, "-m", "tests.learner.cuda_build"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    print(*rows, sep="\n")
    assert [row["recipe"] for row in rows] == [*RECIPES, *RECIPES]
    assert [row["fused"] for row in rows] == [False] * len(RECIPES) + [True] * len(RECIPES)
    for row in rows:
        assert (row["devices"], row["dtypes"]) == (["cuda:0"], ["torch.bfloat16"])
        assert bool(row["kernels"]) == row["fused"]

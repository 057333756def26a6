"""Real runs of `launch/run.py` in a process of their own, with a model so small that only the system takes time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.conf.load import written
from tests.conftest import ROOT, save_llama
from tests.json_lines import write_rows

WORDS = ["<unk>", "<bos>", "<eos>", *map(str, range(10)), "+", "=", "user", "assistant"]
BOXES = [rf"\boxed{{{number}}}" for number in (6, 7, 8)]
TINY = {
    "data.problem_pattern": "",
    "data.few_shot": [],
    "data.system": None,
    "data.template": "'{problem}'",
    "data.size": None,
    "lora.rank": 8,
    "rollout.max_prompt_tokens": 32,
    "rollout.max_response_tokens": 12,
    "learner.problems_per_update": 4,
    "eval.problems": 16,
    "dashboard.port": 0,
}
"""Settings of a run of the boxing model."""

TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant"


@pytest.fixture(scope="session")
def boxing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A random Llama whose words include whole answers such as \boxed{7}, so that chance is right now and then."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if torch.version.cuda is not None:
        pytest.skip("times and sizes of a machine without a card; tests/gpu has whole runs on one")
    folder = tmp_path_factory.mktemp("boxing-model")
    vocabulary = {word: number for number, word in enumerate([*WORDS, *BOXES])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>", pad_token="<eos>"
    )
    tokenizer.chat_template = TEMPLATE
    return save_llama(folder, tokenizer, vocab_size=len(vocabulary), hidden_size=64, num_attention_heads=2)


@pytest.fixture(scope="session")
def start(boxing_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.Popen[str]]:
    """Start a run of the tiny model by name, with further settings; or a sweep, with program="sweep". process: further
    arguments of its Popen.
    """
    folder = tmp_path_factory.mktemp("runs")
    rows = ({"problem": f"{a} + {b} =", "answer": "7"} for a in range(9) for b in range(9))
    sums = write_rows(folder / "sums.jsonl", rows)
    usual = {"run.folder": str(folder), "model.path": str(boxing_model), "data.source": f"file:{sums}", **TINY}
    usual |= {"rollout.kv_cache_gib": 1, "checkpoint.every": 2}

    def launch(name: str, *settings: str, program: str = "run", **process: Any) -> subprocess.Popen[str]:
        named = f"{'sweep' if program == 'sweep' else 'run'}.name={name}"
        given = {setting.partition("=")[0] for setting in settings}
        others = [written(key, value) for key, value in usual.items() if key not in given]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "launch" / f"{program}.py"), "conf=quickstart", named, *others, *settings],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **process},
            text=True,
            env={**os.environ, "COLUMNS": "120"},
            start_new_session=True,
        )

    launch.folder = folder  # type: ignore[attr-defined]
    return launch


def read_summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())

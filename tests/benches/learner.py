"""Compares the learner's forward and backward passes with a plain implementation, on the CPU with the bundled model.

Plain: a PEFT model, rows padded to the longest of a micro-batch, full logits, log_softmax and gather. Both sides get
the same samples, tokens per micro-batch and dtype.
"""

import ctypes
import gc
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from microbudget_rl.actors.messages import AdapterRef, Batch, Group
from microbudget_rl.actors.models.files import locate
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.launch.checkup.measurement import random_group
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.session.admission import resolve_model
from tests.benches.results import Result, Row, measured

MICROBATCH = 4096

Step = Callable[[Batch], object]
"""Forward and backward passes over a batch."""


@dataclass(frozen=True)
class Case:
    """The samples of both sides.

    tokens: length of the longest sample, prompt included.
    recompute: use gradient checkpointing on both sides.
    """

    name: str
    rank: int
    groups: int
    samples: int
    tokens: int
    recompute: bool = False


CASES = (
    *(Case(f"r={rank}, 64 samples of mixed length up to 512", rank, 8, 8, 512) for rank in (8, 256)),
    *(Case(f"r={rank}, 2 samples up to 4,096", rank, 1, 2, 4096) for rank in (8, 256)),
    Case("r=8, 2 samples up to 4,096, recomputed", 8, 1, 2, 4096, recompute=True),
)


def run() -> Result:
    rows = []
    for case in CASES:
        ours, plain = (measure(side, case) for side in ("ours", "plain"))
        for metric in ("tokens_per_second", "peak_memory"):
            rows.append(Row(case.name, metric, ours[metric], plain[metric]))
            print(f"{case.name}: {metric} {ours[metric]:,.4g}, plain {plain[metric]:,.4g}", flush=True)
    notes = (
        "tokens_per_second: all tokens; peak_memory: bytes above the resting process.",
        f"Micro-batches of {MICROBATCH} tokens on both sides.",
    )
    return Result(tuple(rows), matmul_limit(), notes)


def measure(side: str, case: Case) -> dict[str, float]:
    """Measure one side of a case in a process of its own."""
    return measured(__name__, side, json.dumps(asdict(case)))


def matmul_limit() -> dict[str, float]:
    """Measure the FLOP/s of large dense multiplications on all cores, by dtype."""
    import torch

    limit = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2, 2048, 2048, dtype=dtype)
        started, count = perf_counter(), 0
        while count < 2 or perf_counter() - started < 1.0:
            a @ b
            count += 1
        limit[f"{str(dtype).removeprefix('torch.')} matmul FLOP/s"] = 2 * 2048**3 * count / (perf_counter() - started)
    return limit


def batch(case: Case) -> Batch:
    """Make random samples; the logarithms of the response lengths are spread evenly over a factor of ten."""
    rng, groups = random.Random(case.tokens), []
    for index in range(case.groups):
        prompt = rng.randint(40, 120)
        longest = case.tokens - prompt
        lengths = [longest, *(int(longest * 10 ** -rng.random()) for _ in range(case.samples - 1))]
        groups.append(random_group(rng, index, prompt, lengths, AdapterRef(0, 0, "")))
    return Batch(0, tuple(groups))


def measure_here(side: str, case: Case) -> dict[str, float]:
    """Warm up on short samples, rest, then measure."""
    recompute = f"learner.gradient_checkpointing={'on' if case.recompute else 'off'}"
    sizes = (f"lora.rank={case.rank}", f"learner.tokens_per_microbatch={MICROBATCH}")
    config = resolve_model(load(["conf=quickstart", *sizes, recompute, "rollout.temperature=1.0"]), detect("cpu"))
    work = batch(case)
    with TemporaryDirectory() as folder:
        step = {"ours": ours, "plain": plain}[side](config, locate(config.model), Path(folder))
        step(Batch(0, tuple(shorten(group) for group in work.groups[:2])))
        resting = begin()
        started = perf_counter()
        step(work)
        seconds = perf_counter() - started
    tokens = sum(len(group.problem.prompt_ids) + len(s.token_ids) for group in work.groups for s in group.samples)
    return {"tokens_per_second": tokens / seconds, "peak_memory": status("VmHWM") - resting}


def ours(config: Config, model: str, folder: Path) -> Step:
    from microbudget_rl.learner.learner import LoraLearner

    return LoraLearner(config, model, folder).accumulate


def plain(config: Config, model: str, _: Path) -> Step:
    """Return forward and backward passes in their usual form."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from microbudget_rl.learner.examples import Example, examples

    base = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, config.model.dtype))
    lora = LoraConfig(r=config.lora.rank, lora_alpha=config.lora.alpha, target_modules=list(config.lora.target_modules))
    policy = get_peft_model(base, lora, autocast_adapter_dtype=False).train()
    if config.learner.gradient_checkpointing == "on":
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def learn(part: list[Example], total: int) -> None:
        rows = [(*example.tokens.prompt, *example.tokens.response) for example in part]
        width = max(map(len, rows))
        ids = torch.tensor([row + (0,) * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        weights = torch.zeros(len(rows), width - 1)
        for number, example in enumerate(part):
            weights[number, len(example.tokens.prompt) - 1 : len(rows[number]) - 1] = example.advantage / total
        logits = policy(input_ids=ids, attention_mask=mask).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        (-(logprobs * weights).sum()).backward()

    def step(work: Batch) -> None:
        policy.zero_grad()
        members = examples(work.groups, config.algorithm.regularised)
        widest = max(len(member.tokens.prompt) + len(member.tokens.response) for member in members)
        count = max(MICROBATCH // widest, 1)
        total = sum(len(sample.token_ids) for group in work.groups for sample in group.samples)
        for start in range(0, len(members), count):
            learn(members[start : start + count], total)

    return step


def shorten(group: Group) -> Group:
    """Return a group of two samples of at most 16 tokens."""
    samples = tuple(replace(s, token_ids=s.token_ids[:16], logprobs=s.logprobs[:16]) for s in group.samples[:2])
    return replace(group, samples=samples, rewards=group.rewards[:2])


def begin() -> int:
    """Return the bytes that this process takes at rest, and reset its peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # free memory does not count as resting
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return status("VmRSS")


def status(name: str, process: int | str = "self") -> int:
    """Return a line of a process's status, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], Case(**json.loads(sys.argv[2])))))

"""Check whether a server, or this project's engine, applies a LoRA adapter as transformers and PEFT compute it.

    python launch/check_adapter.py MODEL ADAPTER [server=ADDRESS served=NAME] [base=NAME] [timeout=300] [json=FILE]

Examples:

    python launch/check_adapter.py Qwen/Qwen3-0.6B ./adapter                     # in this project's engine
    python launch/check_adapter.py bundled:smollm2-135m runs/quickstart/checkpoints/latest json=answer.json
    python launch/check_adapter.py ./model ./adapter server=http://127.0.0.1:8000/v1 served=my-adapter

MODEL is a folder or OWNER/NAME[@REVISION] on the Hub, ADAPTER a folder in PEFT's format. The server has OpenAI's API
and gives the log-probabilities of a prompt, as vLLM does. `served` and `base` are its names of adapter and base model.
Its key is in OPENAI_API_KEY. The exit code is 0 if the adapter is served rightly, 1 if not or if that
cannot be told, and 2 for bad input.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import asyncio
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, cycle, islice
from pathlib import Path

import httpx2
from rich.box import SIMPLE_HEAD
from rich.table import Table

from microbudget_rl.actors.adapter_check.at_start import LONG_PROMPT
from microbudget_rl.actors.adapter_check.prompts import Responses
from microbudget_rl.actors.messages import AdapterRef, Group, Problem, Sample, Sampling
from microbudget_rl.actors.models.adapters import Adapter, adopt_adapter
from microbudget_rl.actors.models.families import read_config, text_config
from microbudget_rl.actors.models.files import load_tokenizer, locate
from microbudget_rl.actors.runtime.placement import place_engines
from microbudget_rl.actors.storage.files import replace_text
from microbudget_rl.conf.arguments import whole, words_and_options
from microbudget_rl.conf.command import PlainConsole, command
from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.chat import off_screen
from microbudget_rl.launch.hardware.machine import check_build, detect

TEXTS = (
    "A train leaves at 9:40 and arrives at 13:05. How long does it take? def fibonacci(n): return n if n < 2 else",
    "The lighthouse keeper wrote every evening. We need x with 3x + 7 = 25, so 3x = 18 and x = 6: \\boxed{6}.",
)
RESPONSE = 64
"""Tokens of each response of an engine."""


@command("check_adapter.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code."""
    words, given = words_and_options(arguments, dict.fromkeys(("server", "served", "base", "timeout", "json"), ()))
    if len(words) != 2 or ("server" in given) != ("served" in given):
        raise BadInput("give a model and an adapter, and both of server=ADDRESS and served=NAME or none of them")
    config = changed(Config(), {"model.path": words[0], "rollout.max_concurrent_samples": 16})
    model_path = locate(config.model)
    context = text_config(read_config(model_path)).get("max_position_embeddings", LONG_PROMPT + RESPONSE)
    long = min(LONG_PROMPT, context - RESPONSE)
    config = changed(config, {"rollout.max_prompt_tokens": long, "rollout.max_response_tokens": RESPONSE})
    config, adapter = adopt_adapter(config, words[1], model_path, part=True)
    tokenizer = load_tokenizer(model_path, words[0])
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"][:long] for text in TEXTS]
    prompts.append(list(islice(cycle(chain.from_iterable(prompts)), long)))
    assert adapter is not None
    if "server" in given:
        answers = asyncio.run(from_server(given, prompts))
    else:
        with off_screen():
            answers = asyncio.run(from_engine(config, adapter, prompts))
    from microbudget_rl.launch.after.served import compare, reference, rightly

    rows = compare(reference(model_path, adapter.folder), *answers)
    table = Table("", "right", "", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(row.question, {True: "yes", False: "NO", None: "?"}[row.right], row.answer)
    said: dict[bool | None, str] = {True: "The adapter is served rightly.", False: "The adapter is NOT served rightly."}
    PlainConsole().print(table, said.get(verdict := rightly(rows), "Its effect is too small to tell if it is served."))
    if file := given.get("json"):
        replace_text(Path(file), json.dumps({"rightly": verdict, "rows": [*map(asdict, rows)]}, indent=1))
    return 0 if verdict else 1


async def from_engine(config: Config, adapter: Adapter, prompts: Sequence[list[int]]) -> list[Responses]:
    """Return the responses of an engine on this machine, under the base model and under the adapter."""
    machine = detect(config.device)
    check_build(config, machine)
    share = place_engines(machine.cores, machine.gpus).rollouts[0]
    share.bind()  # before torch is imported
    from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine

    engine, served = RolloutEngine(config, locate(config.model), share), AdapterRef(0, 0, str(adapter.folder))
    await engine.load(served)

    async def ask(policy: AdapterRef | None) -> Responses:
        problems = (Problem("", "", tuple(ids), "") for ids in prompts)
        sampling = Sampling(1, RESPONSE, temperature=1.0, top_p=1.0, seed=0)
        return tuple(await asyncio.gather(*(engine.generate(0, each, policy, sampling) for each in problems)))

    answers = [*await asyncio.gather(ask(None), ask(served))]
    await engine.close()
    return answers


async def from_server(given: dict[str, str], prompts: Sequence[list[int]]) -> list[Responses]:
    """Return the prompts' own tokens, from the second on, as responses of the server's base model and adapter.

    Raises BadInput if it has no such models, gives no log-probabilities, or takes too long.
    """
    address, served, limit = given["server"].rstrip("/"), given["served"], whole(given.get("timeout", "300"), 10**6)
    if "@" in address or not limit:
        raise BadInput("server, timeout: give the address without a user or a password, and a number of seconds")
    key = os.environ.get("OPENAI_API_KEY") or os.environ.get("VLLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with asyncio.timeout(limit), httpx2.AsyncClient(timeout=None, headers=headers) as client:
            listed = (await client.get(f"{address}/models")).raise_for_status().json()["data"]
            models = {str(each["id"]): each.get("parent") for each in listed}
            base = given.get("base") or models.get(served)
            if base not in models or served not in models:
                raise BadInput(f"server: it has {', '.join(models)}; give served=NAME, and base=NAME of its base model")

            async def ask(model: str) -> Responses:
                groups = []
                for ids in prompts:
                    body = {"model": model, "prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1}
                    answer = (await client.post(f"{address}/completions", json=body)).raise_for_status().json()
                    found = ((answer["choices"][0].get("logprobs") or {}).get("token_logprobs") or [])[1 : len(ids)]
                    if len(found) < len(ids) - 1:
                        raise BadInput("server: it gives no log-probabilities of a prompt (echo); serve with vLLM")
                    sample = Sample(ids[1:], [math.nan if each is None else each for each in found], "", "")
                    groups.append(Group(0, Problem("", "", tuple(ids[:1]), ""), None, (sample,)))
                return tuple(groups)

            return [await ask(base), await ask(served)]
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        remedy = f"give the address of a server with OpenAI's API, or a longer timeout than {limit} s"
        raise BadInput(f"server: {in_brief(error)}; {remedy}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

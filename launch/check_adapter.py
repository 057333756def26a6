"""Check whether a server, or this project's engine, applies a LoRA adapter as transformers and PEFT compute it.

    python launch/check_adapter.py MODEL ADAPTER [server=ADDRESS served=NAME] [base=NAME] [timeout=300] [json=FILE]

Examples:

    python launch/check_adapter.py Qwen/Qwen3-0.6B ./adapter                     # in this project's engine
    python launch/check_adapter.py bundled:smollm2-135m runs/quickstart/checkpoints/latest json=answer.json
    python launch/check_adapter.py ./model ./adapter server=http://127.0.0.1:8000/v1 served=my-adapter

MODEL is a folder or OWNER/NAME[@REVISION] on the Hub, ADAPTER a folder in PEFT's format. The server has OpenAI's API
and gives log-probabilities of a prompt. `served` and `base` are its names of adapter and base model. Its key is in
OPENAI_API_KEY; each wait for it takes at most `timeout` seconds. The exit code is 0 if the adapter is served correctly,
1 if not or if that cannot be told, and 2 for bad input.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import asyncio
import json
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx2

from microbudget_rl.actors.adapter_check.at_start import LONG_PROMPT
from microbudget_rl.actors.adapter_check.prompts import Responses
from microbudget_rl.actors.attempt import rollout_sampling
from microbudget_rl.actors.messages import AdapterRef, Group, Problem, Request, Sample
from microbudget_rl.actors.models.adapters import Adapter, adopt_adapter
from microbudget_rl.actors.models.families import read_config, text_config
from microbudget_rl.actors.models.files import load_tokenizer, locate
from microbudget_rl.actors.runtime.placement import place_engines
from microbudget_rl.actors.storage.files import replace_text
from microbudget_rl.conf.arguments import whole, words_and_options
from microbudget_rl.conf.command import command
from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.schema import Config, ModelConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.chat import off_screen
from microbudget_rl.launch.hardware.machine import check_build, detect


@command("check_adapter.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code."""
    words, given = words_and_options(arguments, dict.fromkeys(("server", "served", "base", "timeout", "json"), ()))
    if len(words) != 2 or ("server" in given) != ("served" in given):
        raise BadInput("give a model and an adapter, and both of server=ADDRESS and served=NAME or none of them")
    file = Path(given["json"]) if "json" in given else None
    if file and (file.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK)):
        raise BadInput(f"json={file}: cannot be written; name a file in a folder that is there and yours to write to")
    model_path = locate(ModelConfig(words[0]))
    longest = min(LONG_PROMPT, text_config(read_config(model_path)).get("max_position_embeddings", 10**9) - 64)
    settings = {"max_prompt_tokens": longest, "max_response_tokens": 64, "max_concurrent_samples": 16}
    config = changed(Config(), {"model.path": words[0]} | {f"rollout.{key}": settings[key] for key in settings})
    config, adapter = adopt_adapter(config, words[1], model_path, part=True)
    assert adapter is not None
    ids = load_tokenizer(model_path, words[0])(__doc__, add_special_tokens=False)["input_ids"]
    prompts = [part[:longest] for part in (ids[:64], ids[64:128], LONG_PROMPT * ids)]
    if "server" in given:
        answers = from_server(given, prompts)
    else:
        with off_screen(), ProcessPoolExecutor(1, get_context("spawn")) as apart:
            answers = apart.submit(from_engine, config, adapter, prompts).result()
    from microbudget_rl.launch.trained.served import compare, reference

    rows = compare(reference(model_path, adapter.folder), *answers)
    right = False if any(row.right is False for row in rows) else rows[1].right  # the adapter is applied
    for row in rows:
        print(f"{row.question:36} { ({True: 'yes', False: 'NO', None: '?'}[row.right]):4} {row.answer}".rstrip())
    print("The adapter is", {True: "served correctly", False: "NOT served correctly", None: "too weak to tell"}[right])
    if file:
        replace_text(file, json.dumps({"rightly": right, "rows": [row._asdict() for row in rows]}, indent=1))
    return 0 if right else 1


def from_engine(config: Config, adapter: Adapter, prompts: list[list[int]]) -> tuple[Responses, Responses]:
    """Return an engine's responses under base model and adapter. vLLM changes transformers in its process."""
    check_build(config, machine := detect(config.device))
    share = place_engines(machine.cores, machine.gpus).rollouts[0]
    share.bind()  # before torch is imported
    from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine

    problems, served = [Problem("", "", tuple(ids), "") for ids in prompts], AdapterRef(0, 0, str(adapter.folder))
    sampling = rollout_sampling(config, "check_adapter", 0, samples=1)

    async def respond() -> list[Group]:
        engine = RolloutEngine(config, locate(config.model), share)
        await engine.load(served)
        requests = [
            engine.generate(Request(0, each, policy, sampling)) for policy in (None, served) for each in problems
        ]
        groups = await asyncio.gather(*requests)
        await engine.close()
        return groups

    groups = tuple(asyncio.run(respond()))
    return groups[: len(prompts)], groups[len(prompts) :]


def from_server(given: dict[str, str], prompts: list[list[int]]) -> tuple[Responses, Responses]:
    """Return the prompts' own tokens, from the second on, as responses of the server's base model and adapter."""
    served, limit = given["served"], whole(given.get("timeout", "300"), 10**6)
    if "@" in given["server"] or not limit:
        raise BadInput("server, timeout: give the address without a user or a password, and a number of seconds")
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    hooks: Any = {"response": [httpx2.Response.raise_for_status]}

    def ask(client: httpx2.Client, model: str) -> Responses:
        groups = []
        for ids in prompts:
            body = {"model": model, "prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1}
            echo = client.post("completions", json=body).json()["choices"][0].get("logprobs") or {"token_logprobs": []}
            logprobs = [math.nan if each is None else each for each in echo["token_logprobs"][1 : len(ids)]]
            if len(logprobs) < len(ids) - 1:
                raise BadInput("server: it gives no log-probabilities of a prompt (echo); serve with vLLM")
            groups.append(Group(0, Problem("", "", (ids[0],), ""), None, (Sample(ids[1:], logprobs, "", ""),)))
        return tuple(groups)

    try:
        with httpx2.Client(base_url=given["server"], headers=headers, timeout=limit, event_hooks=hooks) as client:
            models = {str(each["id"]): each.get("parent") for each in client.get("models").json()["data"]}
            base = given.get("base") or models.get(served)
            if base not in models or served not in models:
                raise BadInput(f"server: it has {', '.join(models)}; give served=NAME, and base=NAME of its base model")
            return ask(client, base), ask(client, served)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"server: {in_brief(error)}; give one with OpenAI's API, or more than timeout={limit}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

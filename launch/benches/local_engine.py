"""Draws samples of a small model in this process, for studies whose runs have to take seconds.

What it gives differs from vLLM's by rounding only, and a study that asks about that needs the real one.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.messages import AdapterRef, Group, Problem, Sample, Sampling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Request:
    """A question to the model, and where its answer goes."""

    problem: Problem
    adapter: AdapterRef | None
    sampling: Sampling
    answer: "asyncio.Future[tuple[Sample, ...]]"


class LocalEngine:
    """Serves adapters merged into copies of the model, in float32. Requests made in one go are answered together."""

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._path = model
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._models: dict[str | None, Any] = {None: AutoModelForCausalLM.from_pretrained(model, dtype="float32")}
        self._requests: list[Request] = []

    async def load(self, adapter: AdapterRef) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(self._path, dtype="float32")
        adapted: Any = PeftModel.from_pretrained(base, adapter.path)
        self._models[adapter.name] = adapted.merge_and_unload()

    async def retire(self, adapter: AdapterRef) -> None:
        del self._models[adapter.name]

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        loop = asyncio.get_running_loop()
        if not self._requests:
            loop.call_soon(self._answer)
        request = Request(problem, adapter, sampling, loop.create_future())
        self._requests.append(request)
        return Group(index, problem, adapter, await request.answer)

    async def close(self) -> None:
        self._models.clear()

    def _answer(self) -> None:
        """Answer what has been asked; what shares model and lengths is one batch."""
        batches: dict[tuple[str | None, int, int], list[Request]] = {}
        for request in self._requests:
            name = request.adapter.name if request.adapter else None
            key = (name, len(request.problem.prompt_ids), request.sampling.max_tokens)
            batches.setdefault(key, []).append(request)
        self._requests = []
        for (name, _, _), requests in batches.items():
            self._draw(self._models[name], requests)

    def _draw(self, model: Any, requests: list[Request]) -> None:
        import torch

        counts = [request.sampling.samples for request in requests]
        prompts = torch.tensor([request.problem.prompt_ids for request in requests])
        noise = torch.cat([_gumbel(request.sampling, model.config.vocab_size) for request in requests])
        heat = torch.tensor([request.sampling.temperature for request in requests])
        repeats = torch.tensor(counts)
        ids, logprobs = _sample(model, prompts.repeat_interleave(repeats, 0), noise, heat.repeat_interleave(repeats))
        samples = [self._one(*row) for row in zip(ids.tolist(), logprobs.tolist(), strict=True)]
        for request, count in zip(requests, counts, strict=True):
            request.answer.set_result(tuple(samples[:count]))
            samples = samples[count:]

    def _one(self, ids: list[int], logprobs: list[float]) -> Sample:
        end = self._tokenizer.eos_token_id
        length = ids.index(end) + 1 if end in ids else len(ids)
        text: Any = self._tokenizer.decode(ids[:length], skip_special_tokens=True)
        return Sample(tuple(ids[:length]), tuple(logprobs[:length]), text, "stop" if end in ids else "length")


def _gumbel(sampling: Sampling, vocabulary: int) -> "Tensor":
    """Return a request's noise, float [samples, tokens, words]: the word of the largest logit plus noise is drawn."""
    import torch

    generator = torch.Generator().manual_seed(sampling.seed)
    uniform = torch.rand(sampling.samples, sampling.max_tokens, vocabulary, generator=generator)
    return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()


def _sample(model: Any, prompts: "Tensor", noise: "Tensor", heat: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return token ids and their log-probabilities, [rows, tokens]. prompts: ids, of one length; heat: temperatures."""
    import torch

    ids, logprobs, step, past = [], [], prompts, None
    with torch.inference_mode():
        for number in range(noise.shape[1]):
            out = model(input_ids=step, past_key_values=past, use_cache=True)
            past, found = out.past_key_values, (out.logits[:, -1] / heat[:, None]).log_softmax(-1)
            step = (found + noise[:, number]).argmax(-1, keepdim=True)
            ids.append(step)
            logprobs.append(found.gather(1, step))
    return torch.cat(ids, 1), torch.cat(logprobs, 1)

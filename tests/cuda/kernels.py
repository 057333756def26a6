"""Triton's kernels of liger-kernel and vLLM, compiled for GPUs that are not here, with the recipes' sizes."""

from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction, MockTensor

from actors.models.families import FUSED
from actors.models.files import shape_of
from actors.models.sizes import adapter_slots, padded_rank, projection_sizes
from conf.load import load
from conf.schema import Config
from conf.settings import changed
from tests.cuda.absent import CARDS, SHARED, attempt, pretend, without_content
from tests.cuda.engines import recipes
from tests.random_model import configuration

CALLS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""Projections whose products with an adapter one call of vLLM computes."""

STEPS = (8, 256)
"""Tokens of an engine's step: vLLM takes other blocks for fewer than 128."""


def learn(config: Config) -> None:
    """Pass through a block of the learner's model, and back, with fused kernels."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN

    stated = configuration(changed(config, {"model.shape.num_hidden_layers": 1, "model.shape.vocab_size": 64}).model)
    if stated.model_type in FUSED:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(stated, attn_implementation="eager", dtype=torch.bfloat16)
        KNOWN[stated.model_type](model=model, cross_entropy=False, fused_linear_cross_entropy=False)
        model.to_empty(device="cpu").requires_grad_(False).enable_input_require_grads()
        model(input_ids=torch.tensor([[3] * 16])).logits.sum().backward()


def adapt(config: Config) -> None:
    """Compute vLLM's products with an adapter, for all modules and both kinds of steps."""
    from vllm.lora.ops.triton_ops import lora_expand_op, lora_shrink_op, utils
    from vllm.lora.punica_wrapper import punica_gpu

    # vLLM offers its products to torch for CUDA's tensors only, and copies lists from pinned memory.
    utils.async_tensor_h2d = lambda values, dtype, **_: torch.tensor(values, dtype=dtype)
    punica_gpu.lora_shrink, punica_gpu.lora_expand = lora_shrink_op._lora_shrink, lora_expand_op._lora_expand
    sizes, slots, rank = projection_sizes(config.model.shape), adapter_slots(config), padded_rank(config.lora.rank)
    settings = SimpleNamespace(max_loras=slots, fully_sharded_loras=False, specialize_active_lora=False)
    wrapper = punica_gpu.PunicaWrapperGPU(
        max(STEPS), max(STEPS), torch.device("cpu"), max_loras=slots, lora_config=settings
    )
    empty = partial(torch.empty, dtype=torch.bfloat16)
    for parts in CALLS:
        inputs, outputs = sizes[parts[0]][0], tuple(sizes[part][1] for part in parts)
        a, b = [empty(slots, 1, rank, inputs) for _ in outputs], [empty(slots, 1, size, rank) for size in outputs]
        for tokens in STEPS:
            wrapper.add_lora_linear(empty(tokens, sum(outputs)), empty(tokens, inputs), a, b, 1.0, outputs)


def sample(config: Config) -> None:
    """Sample a step's tokens as vLLM's second runner does: with temperature, top-p, seeds and log-probabilities."""
    from vllm.v1.sample.ops.topk_topp_triton import apply_top_k_top_p_triton
    from vllm.v1.worker.gpu.input_batch import get_num_sampled_and_rejected
    from vllm.v1.worker.gpu.sample.gumbel import apply_temperature, gumbel_sample
    from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores

    with without_content(), torch.device("cuda"):
        for count in STEPS:
            logits, values = torch.empty(count, config.model.shape.vocab_size), torch.empty(count)
            rows, numbers = torch.empty(count, dtype=torch.int32), torch.empty(count, dtype=torch.int64)
            apply_temperature(logits, rows, values)
            apply_top_k_top_p_triton(logits, None, values)
            for applied in (False, True):
                gumbel_sample(logits, rows, values, numbers, numbers, applied, False)
            compute_topk_scores(logits, 0, numbers)
            get_num_sampled_and_rejected(rows, rows, rows, rows, rows)


def ask(capability: int) -> None:
    """Compile each kernel where it would be started. Tensors count as aligned, as torch allocates them."""
    run, compiled = JITFunction.run, dict[str, tuple[str, int]]()

    def note(kernel: Any, *given: Any, grid: Any, warmup: bool = True, **named: Any) -> Any:
        mocks = [MockTensor(value.dtype) if isinstance(value, Tensor) else value for value in given]
        made = run(kernel, *mocks, grid=grid, warmup=True, **named)
        compiled[made.hash] = kernel.__name__, made.metadata.shared
        return made

    def within(shared: int) -> dict[str, Any]:
        if shared > 1024 * SHARED[capability]:
            raise ValueError(f"{shared} bytes of shared memory for a block, which may have {SHARED[capability]} KiB")
        return {"shared": shared}

    pretend(CARDS[capability][0])
    target = GPUTarget("cuda", capability, 32)
    driver.set_active(
        SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda _: 0)
    )
    known = set[object]()
    with patch.object(JITFunction, "run", note):
        for name in recipes():
            config = load([f"conf={name}"])
            config = changed(config, {"model.shape": shape_of(config.model)})
            for use in (learn, adapt, sample):
                key = use, config.model.shape, config.lora.rank if use is adapt else None
                if key not in known:
                    attempt(f"kernels that {use.__name__}", f"sm_{capability} {name}", partial(use, config))
                known.add(key)
    for kernel, shared in compiled.values():
        attempt("shared memory of kernels", f"sm_{capability} {kernel}", partial(within, shared))

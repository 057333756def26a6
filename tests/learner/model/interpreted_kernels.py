"""Compares liger-kernel's kernels with transformers' modules on the CPU, in Triton's interpreter.

`TRITON_INTERPRET=1 python -m tests.learner.model.interpreted_kernels` prints, for a small model of each family and
dtype, the relative difference of values and gradients, and exits with 1 if that is beyond rounding. Float16 stands for
all narrow dtypes: the interpreter of Triton 3.9 multiplies the bits of bfloat16 as whole numbers.
"""

import importlib
import json
import sys
from collections import Counter
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from triton.runtime import interpreter

from actors.models.families import FUSED

SHAPE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 1),
}

SCALE = 2.0**-6
"""Scale of the loss: with more, gradients would leave float16's range."""

ROUNDING = {torch.float32: 2e-5, torch.float16: 0.01}


def complete_interpreter() -> None:
    """Add to Triton 3.9's interpreter two things of the compiler: float arguments as tensors, and a root."""
    own = interpreter._implicit_cvt

    def convert(argument: Any) -> Any:
        if isinstance(argument, float):
            return tl.tensor(interpreter.TensorHandle(np.array([argument], dtype=np.float32), tl.float32), tl.float32)
        return own(argument)

    interpreter._implicit_cvt = convert
    importlib.import_module("liger_kernel.ops.rms_norm").rsqrt = rsqrt  # libdevice's runs on GPUs only


def rsqrt(x: Any) -> Any:
    return tl.rsqrt(x)


def passes(model: Any, dtype: torch.dtype) -> list[Tensor]:
    """Return the last hidden states, and the gradients of embeddings and projections for some loss."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(128, (1, 24), generator=generator)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    model.zero_grad()
    states = model.get_decoder()(inputs_embeds=embedded, use_cache=False).last_hidden_state
    (states * (SCALE * torch.randn(states.shape, generator=generator)).to(dtype)).sum().backward()
    leaves = [embedded, *(p for name, p in model.named_parameters() if "_proj" in name and p.grad is not None)]
    return [states.detach(), *(leaf.grad.clone() for leaf in leaves)]


def fused_calls(counts: "Counter[str]") -> None:
    """Count the launches of each kernel."""
    for name in ("rms_norm", "rope", "swiglu"):
        for kernel, found in vars(importlib.import_module(f"liger_kernel.ops.{name}")).items():
            if not isinstance(found, interpreter.InterpretedFunction):
                continue
            own = found.run

            def run(*args: Any, own: Any = own, kernel: str = kernel, **kwargs: Any) -> Any:
                counts[kernel] += 1
                return own(*args, **kwargs)

            found.run = run


def main() -> int:
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    complete_interpreter()
    counts: Counter[str] = Counter()
    fused_calls(counts)
    wrong = 0
    for family in FUSED:
        pairs = []
        for dtype in ROUNDING:
            torch.manual_seed(0)
            config = AutoConfig.for_model(family, **SHAPE)
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype)
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    torch.nn.init.uniform_(parameter, 0.2, 0.6)
            pairs.append((dtype, model, passes(model, dtype)))
        for dtype, model, plain in pairs:  # last, because fused kernels replace the family's in this process
            counts.clear()
            apply = MODEL_TYPE_TO_APPLY_LIGER_FN[family]
            apply(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
            fused = passes(model, dtype)
            apart = [((a - b).float().norm() / b.float().norm()).item() for a, b in zip(fused, plain, strict=True)]
            row = {"family": family, "dtype": str(dtype), "values": apart[0], "gradients": max(apart[1:])}
            print(json.dumps(row | {"kernels": dict(counts)}), flush=True)
            wrong += not max(apart) < ROUNDING[dtype] or len(counts) < 4
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Compiles liger-kernel's kernels in the sizes of the recipes' models for absent GPUs.

`python -m tests.learner.model.compiled_kernels 80 86 …`, with compute capabilities, prints one JSON object for each
kernel, size and GPU.
"""

import json
import sys
from typing import Any

import triton
import triton.language as tl
from liger_kernel.ops import rms_norm, rope, swiglu
from liger_kernel.ops.utils import calculate_settings
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from conf.load import load

RECIPES = ("instruct", "math", "deepscaler", "llama", "qwen3")
LLAMA = 0
"""liger-kernel's number for the casts inside these models' norms."""

Constants = dict[str, Any]


def kernels() -> dict[tuple[Any, ...], tuple[Any, Constants]]:
    """Return kernels and constants by name and sizes, each once for all models."""
    found: dict[tuple[Any, ...], tuple[Any, Constants]] = {}
    for recipe in RECIPES:
        shape = load([f"conf={recipe}"]).model.shape
        for size in (shape.hidden_size, shape.head_dim):
            settings = {"casting_mode": LLAMA, "elementwise_affine": True, "BLOCK_SIZE": triton.next_power_of_2(size)}
            found["norm forward", size] = rms_norm._rms_norm_forward_kernel, settings
            backward = settings | {"X_dtype": tl.bfloat16, "COMPUTE_DW": False, "dW_ptr": None}
            found["norm backward", size] = rms_norm._rms_norm_backward_kernel, backward
            if size == shape.head_dim:  # liger-kernel takes sixteen of many short rows at a time
                found["norms forward", size] = rms_norm._block_rms_norm_forward_kernel, settings | {"BLOCK_ROW": 16}
                backward = backward | {"BLOCK_ROW": 16}
                found["norms backward", size] = rms_norm._block_rms_norm_backward_kernel, backward
        width = shape.intermediate_size
        settings = {"n_cols": width, "BLOCK_SIZE": triton.next_power_of_2(width)}
        found["mlp forward", width] = swiglu._swiglu_forward_kernel, settings
        found["mlp backward", width] = swiglu._swiglu_backward_kernel, settings
        heads = {
            "n_qh": shape.num_attention_heads,
            "n_kh": shape.num_key_value_heads,
            "hd": shape.head_dim,
            "rd": shape.head_dim,
        }
        heads |= {f"pad_{name}": triton.next_power_of_2(count) for name, count in heads.items()}
        for backward_pass in (False, True):
            constants = heads | {"bs": 1, "cos_bs": 1, "BLOCK_SIZE": max(heads["pad_n_qh"], heads["pad_n_kh"])}
            name = f"rotary {'backward' if backward_pass else 'forward'}"
            sizes = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
            found[name, *sizes] = rope._triton_rope, constants | {"BACKWARD_PASS": backward_pass}
    return found


def shared_bytes(kernel: Any, constants: Constants, capability: int) -> int:
    """Compile for a GPU and return a block's shared memory, bytes."""

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name.endswith("_ptr") or name in ("cos", "sin"):
            return "*fp32" if name == "RSTD_ptr" else "*bf16"
        return "fp32" if name in ("eps", "offset", "gate_multiplier") else "i32"

    source = ASTSource(kernel, {name: kind(name) for name in kernel.arg_names}, constexprs=constants)
    _, warps = calculate_settings(constants["BLOCK_SIZE"])
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    return int(compiled.metadata.shared)


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        for (name, *sizes), (kernel, constants) in kernels().items():
            shared = shared_bytes(kernel, constants, capability)
            print(json.dumps({"kernel": name, "sizes": sizes, "capability": capability, "shared": shared}), flush=True)

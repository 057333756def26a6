"""Compiles vLLM's LoRA kernels with our block sizes for cards that are not there; one JSON object a kernel and card.

`python -m tests.actors.rollout.compiled_kernels 80 86 …`, the compute capabilities.
"""

import json
import sys
from typing import Any

from triton.backends import backends

# Or vLLM's CPU build puts stand-ins in the place of its kernels.
backends["nvidia"].driver.is_active = staticmethod(lambda: True)
backends["cpu"] = backends["nvidia"]

import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from vllm.lora.ops.triton_ops import lora_expand_op, lora_shrink_op  # noqa: E402

from actors.rollout.lora_kernels import SHRINK  # noqa: E402

del backends["cpu"]

NUMBERS = ("token_indices_sorted_by_lora_ids", "num_tokens_per_lora", "lora_token_start_loc", "lora_ids")
EXPAND = {"block_m": 64, "block_n": 128, "block_k": 32, "num_warps": 4, "num_stages": 2}
"""vLLM's own, for one slice."""

Constants = dict[str, Any]


def blocks(sizes: dict[str, int]) -> Constants:
    return {f"BLOCK_{axis}": sizes[f"block_{axis.lower()}"] for axis in "MNK"}


def shrink(slices: int) -> tuple[Any, Constants, dict[str, str], dict[str, int]]:
    constants = blocks(SHRINK) | {
        "EVEN_K": True,
        "SPLIT_K": SHRINK["split_k"],
        "GROUP_SIZE_M": SHRINK["group_size_m"],
        "SLICE_NUM": slices,
        "USE_GDC": False,
        "launch_pdl": False,
        "STORE_PARTIALS": False,
        "output_split_stride": 0,
        "PARTIAL_N": 0,
        "PARTIAL_K": 0,
    }
    lora = "*bf16" if slices == 1 else "*u64"
    pointers = {"input_ptr": "*bf16", "lora_ptr": lora, "out_ptr": "*fp32", "scaling": "fp32"}
    return lora_shrink_op._lora_shrink_kernel, constants, pointers, SHRINK


def expand(slices: int) -> tuple[Any, Constants, dict[str, str], dict[str, int]]:
    sizes = EXPAND if slices == 1 else EXPAND | {"block_n": 64}
    constants = blocks(sizes) | {
        "EVEN_K": True,
        "ADD_INPUTS": True,
        "CAST_TYPE": True,
        "SLICE_NUM": slices,
        "SAME_STRIDE": slices == 1,
        "USE_GDC": False,
        "launch_pdl": False,
    }
    lora = "*bf16" if slices == 1 else "*u64"
    pointers = {"input_ptr": "*fp32", "lora_ptr": lora, "out_ptr": "*bf16"}
    if slices > 1:
        pointers |= dict.fromkeys(("slice_start_loc", "ls_d0_ptr", "ls_d1_ptr", "ls_d2_ptr", "output_hs_ptr"), "*i32")
    return lora_expand_op._lora_expand_kernel, constants, pointers, sizes


def shared_bytes(
    kernel: Any, constants: Constants, pointers: dict[str, str], sizes: dict[str, int], capability: int
) -> int:
    """Compile for a card and return the bytes of shared memory that a block takes."""
    types = dict.fromkeys(NUMBERS, "*i32") | pointers
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    options = {name: sizes[name] for name in ("num_warps", "num_stages")}
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return int(compiled.metadata.shared)


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        for name, make in (("shrink", shrink), ("expand", expand)):
            for slices in (1, 3):
                shared = shared_bytes(*make(slices), capability)
                print(json.dumps({"kernel": name, "slices": slices, "capability": capability, "shared": shared}))

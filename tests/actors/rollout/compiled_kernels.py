"""Compiles vLLM's LoRA kernels for cards that are not there: with our block sizes, in every variant that the paper's
models need at ranks 8, 64 and 256. One JSON object a variant and card.

`python -m tests.actors.rollout.compiled_kernels 80 86 …`, the compute capabilities.
"""

import json
import os
import sys
from typing import Any, NamedTuple

from triton.backends import backends

# Or vLLM's CPU build puts stand-ins in the place of its kernels.
backends["nvidia"].driver.is_active = staticmethod(lambda: True)
backends["cpu"] = backends["nvidia"]

import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from vllm.lora.ops.triton_ops import lora_expand_op, lora_shrink_op  # noqa: E402
from vllm.lora.ops.triton_ops.utils import get_lora_op_configs  # noqa: E402

from actors.models.sizes import padded_rank, projection_sizes  # noqa: E402
from actors.rollout.vllm_settings import SHRINK  # noqa: E402
from conf.load import load  # noqa: E402

del backends["cpu"]

RECIPES = ("instruct", "math", "deepscaler", "llama", "qwen3")
RANKS = (8, 64, 256)
FUSED = {"qkv": ("q_proj", "k_proj", "v_proj"), "gate_up": ("gate_proj", "up_proj"), "o": ("o_proj",)} | {
    "down": ("down_proj",)
}
"""Projections that vLLM computes as one."""

NUMBERS = ("token_indices_sorted_by_lora_ids", "num_tokens_per_lora", "lora_token_start_loc", "lora_ids")

Constants = dict[str, Any]


class Variant(NamedTuple):
    """What Triton makes a kernel of its own for, but for the number of tokens: whether that is 1, or divides by 16.

    even: whether the blocks fill the inner dimension. alike: whether all slices are of one size.
    """

    kernel: str
    slices: int
    even: bool
    alike: bool


def variants(recipe: str, rank: int) -> set[Variant]:
    """Return the variants that a model at a rank needs."""
    sizes, padded = projection_sizes(load([f"conf={recipe}"]).model.shape), padded_rank(rank)
    found = set()
    for parts in FUSED.values():
        inputs, outputs = sizes[parts[0]][0], {sizes[part][1] for part in parts}
        found.add(Variant("shrink", len(parts), inputs % (SHRINK["block_k"] * SHRINK["split_k"]) == 0, True))
        block = expand_sizes(len(parts))["block_k"]
        found.add(Variant("expand", len(parts), padded % block == 0, len(outputs) == 1))
    return found


def expand_sizes(slices: int) -> dict[str, Any]:
    """vLLM's own, which it takes for want of a file."""
    sizes: dict[str, Any] = get_lora_op_configs("expand", 3, 64, 1536, 256, slices, True)
    return sizes


def blocks(sizes: dict[str, Any]) -> Constants:
    return {f"BLOCK_{axis}": sizes[f"block_{axis.lower()}"] for axis in "MNK"}


def shrink(variant: Variant) -> tuple[Any, Constants, dict[str, str], dict[str, Any]]:
    constants = blocks(SHRINK) | {
        "EVEN_K": variant.even,
        "SPLIT_K": SHRINK["split_k"],
        "GROUP_SIZE_M": SHRINK["group_size_m"],
        "SLICE_NUM": variant.slices,
        "USE_GDC": False,
        "launch_pdl": False,
        "STORE_PARTIALS": False,
        "output_split_stride": 0,
        "PARTIAL_N": 0,
        "PARTIAL_K": 0,
    }
    lora = "*bf16" if variant.slices == 1 else "*u64"
    pointers = {"input_ptr": "*bf16", "lora_ptr": lora, "out_ptr": "*fp32", "scaling": "fp32"}
    return lora_shrink_op._lora_shrink_kernel, constants, pointers, SHRINK


def expand(variant: Variant) -> tuple[Any, Constants, dict[str, str], dict[str, Any]]:
    sizes = expand_sizes(variant.slices)
    constants = blocks(sizes) | {
        "EVEN_K": variant.even,
        "ADD_INPUTS": True,
        "CAST_TYPE": True,
        "SLICE_NUM": variant.slices,
        "SAME_STRIDE": variant.alike,
        "USE_GDC": False,
        "launch_pdl": False,
    }
    pointers = {"input_ptr": "*fp32", "lora_ptr": "*bf16", "out_ptr": "*bf16"}
    if variant.slices > 1:
        pointers |= {"lora_ptr": "*u64", "slice_start_loc": "*u64"}
    if not variant.alike:
        pointers |= dict.fromkeys(("ls_d0_ptr", "ls_d1_ptr", "ls_d2_ptr", "output_hs_ptr"), "*i64")
    return lora_expand_op._lora_expand_kernel, constants, pointers, sizes


def shared_bytes(variant: Variant, capability: int) -> int:
    """Compile for a card and return the bytes of shared memory that a block takes."""
    kernel, constants, pointers, sizes = (shrink if variant.kernel == "shrink" else expand)(variant)
    types = dict.fromkeys(NUMBERS, "*i32") | pointers
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    options = {name: sizes[name] for name in ("num_warps", "num_stages")}
    whole = [number for number, kind in enumerate(signature.values()) if kind.startswith("*")]  # aligned to 16 bytes
    attributes = {(number,): [["tt.divisibility", 16]] for number in whole}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return int(compiled.metadata.shared)


def computed_s() -> float:
    """Return the processor's seconds of this process and of the assemblers that it has started."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    needed = set().union(*(variants(recipe, rank) for recipe in RECIPES for rank in RANKS))
    for capability in map(int, sys.argv[1:]):
        for variant in sorted(needed):
            began = computed_s()
            row = variant._asdict() | {"capability": capability, "shared": shared_bytes(variant, capability)}
            print(json.dumps(row | {"seconds": round(computed_s() - began, 2)}), flush=True)

"""Fused kernels of liger-kernel for a model's norms, rotary embedding and MLP on a GPU.

If a model keeps its plain kernels, an event says why, and activations are computed twice: plain kernels keep more of
them than the plan has room for. Results differ by rounding only.
"""

import logging
import sys
from typing import Any

import torch

from learner.model.model_check import BAND, FLOOR, change_of

log = logging.getLogger(__name__)


def fuse(base: Any, device: torch.device) -> bool:
    """Give a causal language model fused kernels before an adapter is attached; return whether it has them.

    It keeps its own if liger-kernel is not installed or has none, or if a copy of its first layers computes something
    else with them on this device. Otherwise every model of the family that this process builds later has them.
    """
    family = base.config.model_type
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN
    except ImportError as error:
        return _plain(family, f"liger-kernel cannot be imported: {error}")
    if family not in KNOWN:
        return _plain(family, "liger-kernel has no others")

    def apply(model: Any) -> None:
        # Head and losses are our own (learner.model.logprobs).
        KNOWN[family](model=model, cross_entropy=False, fused_linear_cross_entropy=False)

    modeling = vars(sys.modules[type(base).__module__])
    own = dict(modeling)
    difference, noise = change_of(base, apply, device)
    if not difference <= max(FLOOR, BAND * noise):
        modeling.update(own)
        return _plain(family, f"fused ones change log-probabilities by {difference:.2g} nats, rounding by {noise:.2g}")
    apply(base)
    return True


def _plain(family: str, why: str) -> bool:
    remedy = "to fit the plan, activations are computed twice; learner.fused_kernels=false plans without that"
    log.warning("model family %s keeps its plain kernels (%s): %s", family, remedy, why)
    return False

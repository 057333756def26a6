from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from actors.models.files import locate
from conf.load import load
from learner.model.policy import Policy
from learner.packing import Tokens, pack

SAMPLES = [
    Tokens(tuple(range(3, 3 + prompt)), tuple(range(50 + i, 50 + i + length)))
    for prompt in (9, 20, 1)
    for i, length in enumerate((1, 4, 7, 7))
]


def wrap(base: torch.nn.Module) -> PeftModel:
    torch.manual_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(base, lora, autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def gradients(model: PeftModel, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def reference(base: torch.nn.Module, sample: Tokens) -> Tensor:
    """Return the logits that predict the response, by transformers' own attention."""
    base.set_attn_implementation("sdpa")
    logits = base(input_ids=torch.tensor([sample.prompt + sample.response])).logits
    base.set_attn_implementation("packed")
    return logits[0, len(sample.prompt) - 1 : -1]


@pytest.mark.parametrize("budget", [10_000, 40])
def test_packing_changes_neither_values_nor_gradients(tiny_model: Path, budget: int) -> None:
    """The reference computes every sample alone, with full logits."""
    model = wrap(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32))
    policy = Policy(model, temperature=0.8, chunk=8)
    loss = torch.zeros(())
    for part in pack(SAMPLES, budget):
        got, _ = policy(part)
        pieces = got.split([len(SAMPLES[i].response) for i in part.samples])
        for i, piece in zip(part.samples, pieces, strict=True):
            logits = reference(model.get_base_model(), SAMPLES[i])
            expected = (logits / 0.8).log_softmax(-1).gather(1, torch.tensor(SAMPLES[i].response)[:, None])[:, 0]
            torch.testing.assert_close(piece, expected, rtol=1e-5, atol=2e-5)
            loss = loss + (i + 1) * (piece.sum() - expected.sum())
    residue = torch.stack([g.norm() for g in gradients(model, loss)]).norm()
    got, _ = policy(pack(SAMPLES, 10_000)[0])
    scale = torch.stack([g.norm() for g in gradients(model, got.sum())]).norm()
    assert residue <= 1e-5 * scale


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_bundled_model_passes_its_check(dtype: torch.dtype) -> None:
    config = load(["conf=quickstart"])
    Policy(wrap(AutoModelForCausalLM.from_pretrained(locate(config.model), dtype=dtype)), 1.0, 8)

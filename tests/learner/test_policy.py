from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from conf.errors import BadInput
from learner.microbatches import Tokens, pack
from learner.policy import Policy

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


@pytest.fixture
def model(tiny_model: Path) -> PeftModel:
    return wrap(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32))


def gradients(model: PeftModel, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


@pytest.mark.parametrize(("share", "budget"), [(False, 10_000), (True, 10_000), (True, 40)])
def test_padding_and_sharing_change_neither_values_nor_gradients(model: PeftModel, share: bool, budget: int) -> None:
    """Against every sample alone, with full logits."""
    policy = Policy(model, temperature=0.8, chunk=8)
    assert policy.shares_prompts
    loss = torch.zeros(())
    parts = pack(SAMPLES, budget, share)
    assert any(part.prefixes.numel() for part in parts) == share
    for part in parts:
        got, _ = policy(part)
        pieces = got.split([len(SAMPLES[i].response) for i in part.samples])
        for i, piece in zip(part.samples, pieces, strict=True):
            prompt, response = SAMPLES[i]
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            expected = (logits / 0.8).log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
            torch.testing.assert_close(piece, expected, rtol=1e-5, atol=2e-5)
            loss = loss + (i + 1) * (piece.sum() - expected.sum())
    residue = torch.stack([g.norm() for g in gradients(model, loss)]).norm()
    got, _ = policy(pack(SAMPLES, 10_000, False)[0])
    scale = torch.stack([g.norm() for g in gradients(model, got.sum())]).norm()
    assert residue <= 1e-5 * scale


def test_untied_heads_work_and_sliding_windows_are_not_shared() -> None:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    base = LlamaForCausalLM(LlamaConfig(**shape, **heads, tie_word_embeddings=False))
    policy = Policy(wrap(base), 1.0, 8)
    got, entropy = policy(pack([Tokens((1, 2), (3, 4))], 100)[0])
    expected = base(input_ids=torch.tensor([[1, 2, 3]])).logits[0, 1:].log_softmax(-1)
    torch.testing.assert_close(got, expected[[0, 1], [3, 4]])
    torch.testing.assert_close(entropy, -(expected.exp() * expected).sum(-1))
    base.config.sliding_window = 8
    assert not policy.shares_prompts


def test_a_head_that_is_not_plain_is_refused(tiny_model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    base.lm_head.bias = torch.nn.Parameter(torch.ones(512))
    with pytest.raises(BadInput, match="output head"):
        Policy(wrap(base), 1.0, 8)

"""Log-probabilities of responses, by which an export is verified."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from launch.after import artifact


@pytest.mark.parametrize("tokens", [1, 40, artifact.BATCH_TOKENS])
def test_batches_do_not_change_the_logprobs(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)).eval()
    texts = [([1, 2, 3], [4, 5]), ([7], [8, 9, 10, 11]), ([2] * 6, [3])]
    alone = []
    for prompt, response in texts:
        logprobs = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        alone += [logprobs[len(prompt) - 1 + place, token].item() for place, token in enumerate(response)]
    monkeypatch.setattr(artifact, "BATCH_TOKENS", tokens)
    assert artifact.logprobs(model, texts).tolist() == pytest.approx(alone, abs=1e-5)

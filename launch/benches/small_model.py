"""A small model that half knows the quickstart's task: studies of many runs can afford no larger one.

A Llama of two layers with seventeen words, taught all sums of the quickstart and then made unsure of everything, so
that it is right once in five. Reinforcement can make it sure again, as it does the embedded model.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SUMS = [(a, b) for a in range(10) for b in range(10, 40)]
RIGHT = 0.2
"""Share of right answers, to which the logits are scaled down."""

WIDTH = 128
"""Of the hidden states."""

TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}<end>{% endif %}"
    "{% endfor %}"
)


def make(folder: Path, steps: int = 350, batch: int = 128, width: int = WIDTH) -> None:
    """Write the model into a folder in Hugging Face format, the same every time. batch: answers of a step."""
    import torch

    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = make_model(tokenizer, width)
    prompts = torch.tensor([tokenizer(f"{a} + {b} =").input_ids for a, b in SUMS])
    answers = torch.tensor([tokenizer(f"\\boxed{{{a + b}}}<end>").input_ids for a, b in SUMS])
    rows = torch.cat([prompts, answers], 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        chosen = rows[torch.randint(len(SUMS), (batch,))]
        loss = -answer_logprobs(model, chosen, prompts.shape[1]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    sure = model.model.norm.weight.detach().clone()
    low, high = 0.0, 1.0
    for _ in range(10):
        with torch.no_grad():
            model.model.norm.weight.copy_(sure * (low + high) / 2)
            right = answer_logprobs(model, rows, prompts.shape[1]).sum(1).exp().mean().item()
        low, high = (low, (low + high) / 2) if right > RIGHT else ((low + high) / 2, high)
    model.to(torch.bfloat16).save_pretrained(folder)


def answer_logprobs(model: Any, rows: "Tensor", prompt: int) -> "Tensor":
    """Return the log-probabilities of what follows the prompt, float [rows, tokens]."""
    logprobs = model(input_ids=rows).logits[:, prompt - 1 : -1].log_softmax(-1)
    found: Tensor = logprobs.gather(2, rows[:, prompt:, None])[..., 0]
    return found


def make_tokenizer() -> Any:
    """Return a tokenizer of single characters and `\\boxed{`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = ["<pad>", "<end>", "\\boxed{", "}", *"0123456789 +="]
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(characters)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>", unk_token="<pad>")
    tokenizer.add_tokens([AddedToken("\\boxed{", normalized=False)])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer: Any, width: int) -> Any:
    """Return an untrained model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,  # vLLM pads to as many; with 17 a run met a token beyond them, for a reason not found
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=width // 4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )

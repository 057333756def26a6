"""One update of GRPO in one process, from problems to changed weights, with the functions that a run uses.

    .venv/bin/python docs/one_update.py [conf=NAME key=value …]

A run does the same in several processes at once: vLLM samples under the adapter of a version, workers verify, and the
learner takes its step with DeepSpeed and publishes the adapter of the next version.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import AutoModelForCausalLM

from microbudget_rl.actors.messages import AdapterRef, Group, Problem, Sample
from microbudget_rl.actors.models.files import load_tokenizer, locate
from microbudget_rl.conf.load import load
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.advantages import examples
from microbudget_rl.learner.losses import Observed, Totals, policy_loss
from microbudget_rl.learner.model.adapter import adapter_norms, load_model
from microbudget_rl.learner.model.policy import Policy
from microbudget_rl.learner.packing import Tokens, pack
from microbudget_rl.rewards.problems.loading import load_problems
from microbudget_rl.rewards.verify import verify
from microbudget_rl.rewards.weighted_sum import reward_function


def one_update(settings: list[str]) -> tuple[list[Group], dict[str, float]]:
    """Take one step from the base model. Return the groups, and the norm of the weights' change by type of module."""
    config = changed(load(settings), {"model.dtype": "float32"})
    rollout, algorithm, folder = config.rollout, config.algorithm, locate(config.model)
    tokenizer = load_tokenizer(folder, config.model.path)
    engine = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = load_model(config, folder)  # the same under a LoRA adapter, which changes nothing at version 0
    policy = Policy(model, rollout.temperature, config.learner.logprob_chunk).eval()
    reward = reward_function(config)

    def respond(problem: Problem) -> tuple[Sample, ...]:
        """Sample a group from the full distribution: only so do its log-probabilities mean the same to the learner."""
        prompts = torch.tensor([problem.prompt_ids] * rollout.samples_per_problem)
        limits = {"max_new_tokens": rollout.max_response_tokens, "temperature": rollout.temperature}
        rows = engine.generate(input_ids=prompts, do_sample=True, top_k=0, top_p=1.0, **limits)
        return tuple(to_sample(problem.prompt_ids, row[len(problem.prompt_ids) :].tolist()) for row in rows)

    def to_sample(prompt: tuple[int, ...], ids: list[int]) -> Sample:
        ended = tokenizer.eos_token_id in ids
        response = ids[: ids.index(tokenizer.eos_token_id) + 1] if ended else ids
        (alone,) = pack([Tokens(prompt, response)], rollout.longest)
        text = tokenizer.decode(response, skip_special_tokens=True)
        return Sample(response, policy(alone)[0].tolist(), text, "stop" if ended else "length")

    groups = []
    for index, problem in enumerate(load_problems(config, tokenizer).train[: config.learner.problems_per_update]):
        samples = respond(problem)
        rewards = tuple(reward(each, verify(problem.gold, each.text)) for each in samples)
        groups.append(Group(index, problem, AdapterRef(0, 0, ""), samples, rewards))

    learned = examples(groups, algorithm, config.reward.accuracy)  # the samples that have an advantage
    tokens = sum(group.tokens for group in groups)  # all samples count in the denominators
    totals = Totals(len(groups) * rollout.samples_per_problem, tokens, rollout.max_response_tokens)
    optimizer = torch.optim.AdamW(filter(lambda p: p.requires_grad, policy.parameters()), config.learner.learning_rate)
    for micro_batch in pack([each.tokens for each in learned], config.learner.microbatch):
        members = [learned[position] for position in micro_batch.samples]
        lengths = torch.tensor([len(each.engine) for each in members])
        sampled = torch.tensor([value for each in members for value in each.engine])
        advantages = torch.tensor([each.advantage for each in members]).repeat_interleave(lengths)
        logprobs, entropy = policy(micro_batch)
        policy_loss(algorithm, totals, logprobs, entropy, Observed(sampled, sampled, advantages, lengths)).backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), config.learner.max_grad_norm)
    optimizer.step()  # with no advantage in any group there is no gradient, and the weights stay
    return groups, adapter_norms(model)


if __name__ == "__main__":
    found, change = one_update(sys.argv[1:] or ["conf=quickstart"])
    print(f"{sum(not group.zero_variance for group in found)} of {len(found)} groups have variance")
    print("norm of the change:", ", ".join(f"{module} {norm:.4f}" for module, norm in change.items()))

"""One update of GRPO in one process, from problems to changed weights, with the functions that a run uses.

    .venv/bin/python docs/one_update.py [conf=NAME key=value …]

A run does the same in several processes at once: vLLM samples under the adapter of a version, workers verify, and the
learner takes its steps with DeepSpeed and publishes the adapter of the next version. Here, all is in float32 on a CPU,
with the first training problems.
"""

import copy
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import GenerationConfig

from microbudget_rl.actors.advantages import weigh
from microbudget_rl.actors.coordinator.rules.rate import learning_rate
from microbudget_rl.actors.messages import AdapterRef, Group, Sample, request_seed
from microbudget_rl.actors.models.adapters import check_adapter
from microbudget_rl.actors.models.files import load_tokenizer, locate, stop_token_ids
from microbudget_rl.conf.command import command
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.examples import examples, observe
from microbudget_rl.learner.losses import Totals, policy_loss
from microbudget_rl.learner.model.adapter import adapter_norms, load_model
from microbudget_rl.learner.model.policy import Policy
from microbudget_rl.learner.optimizer import adamw
from microbudget_rl.learner.packing import Tokens, pack
from microbudget_rl.rewards.problems.loading import load_problems
from microbudget_rl.rewards.verify import verify
from microbudget_rl.rewards.weighted_sum import reward_function


def one_update(settings: list[str]) -> tuple[list[Group], dict[str, float]]:
    """Make a run's first update. Return the groups, and the norm of the adapter's change by type of module."""
    config = changed(load(settings), {"model.dtype": "float32", "learner.offload": "none"})
    rollout, algorithm, folder = config.rollout, config.algorithm, locate(config.model)
    if algorithm.kl or config.learner.dynamic_sampling or config.warm_start.source:
        raise BadInput(
            f"algorithm.kl={algorithm.kl}, learner.dynamic_sampling={config.learner.dynamic_sampling},"
            f" warm_start.source={config.warm_start.source}: only a run has these; leave them out"
        )
    check_adapter(config, folder)
    tokenizer = load_tokenizer(folder, config.model.path)
    model = load_model(config, folder)  # under a LoRA adapter, which changes nothing unless `lora.start_from` is given
    engine = copy.deepcopy(model).eval().get_base_model()  # the policy below has attention of its own
    stops = [tokenizer.eos_token_id, *stop_token_ids(config.model, tokenizer)]
    # Sample from the full distribution: only so do its log-probabilities mean the same to the learner.
    engine.generation_config = GenerationConfig(
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=rollout.temperature,
        max_new_tokens=rollout.max_response_tokens,
        eos_token_id=stops,
        pad_token_id=stops[0],
    )
    policy = Policy(model, rollout.temperature, config.learner.logprob_chunk, entropy_gradient=algorithm.entropy > 0)
    policy.eval()
    reward = reward_function(config)

    def to_sample(prompt: tuple[int, ...], ids: list[int]) -> Sample:
        ended = next((place + 1 for place, token in enumerate(ids) if token in stops), None)
        response = ids[:ended]
        (alone,) = pack([Tokens(prompt, response)], rollout.longest, policy.mixes)
        text = tokenizer.decode(response, skip_special_tokens=True)
        return Sample(response, policy(alone)[0].tolist(), text, "stop" if ended else "length")

    groups = []
    for index, problem in enumerate(load_problems(config, tokenizer).train[: config.learner.problems_per_update]):
        prompts = torch.tensor([problem.prompt_ids] * rollout.samples_per_problem)
        rows = engine.generate(input_ids=prompts)[:, prompts.shape[1] :].tolist()
        samples = tuple(to_sample(problem.prompt_ids, row) for row in rows)
        rewards = tuple(reward(sample, verify(problem.gold, sample.text)) for sample in samples)
        group = Group(index, problem, AdapterRef(0, 0, ""), samples, rewards)
        groups.append(replace(group, advantages=weigh(group, algorithm, config.reward.accuracy)))

    learned = examples(groups, algorithm.regularised)  # with an advantage, or all with an entropy term
    tokens = sum(group.tokens for group in groups)  # all samples count in the denominators
    totals = Totals(len(groups) * rollout.samples_per_problem, tokens, rollout.max_response_tokens)
    micro_batches = pack([sample.tokens for sample in learned], config.learner.microbatch, policy.mixes)
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = adamw(parameters, config.learner)
    optimizer.param_groups[0]["lr"] = learning_rate(config.learner, 0, 0.0, config.budget.updates)
    observed = []
    policy.train()  # with dropout
    torch.manual_seed(request_seed(config.run.seed, "dropout-0", 0))
    for _ in range(algorithm.steps_per_batch):
        for number, micro_batch in enumerate(micro_batches):
            logprobs, entropy = policy(micro_batch)
            if number == len(observed):  # the old probabilities are those before the first step
                members = [learned[position] for position in micro_batch.samples]
                observed.append(observe(algorithm, members, logprobs.detach()))
            policy_loss(algorithm, totals, logprobs, entropy, observed[number]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.learner.max_grad_norm)
        optimizer.step()  # with no sample to learn from there is no gradient, and the weights stay
        optimizer.zero_grad()
    return groups, adapter_norms(model)


@command("one_update.py", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    groups, norms = one_update(arguments or ["conf=quickstart"])
    print(f"{sum(not group.zero_variance for group in groups)} of {len(groups)} groups have variance")
    print("norm of the adapter's change:", ", ".join(f"{module} {norm:.4f}" for module, norm in norms.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

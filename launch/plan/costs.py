"""What the work of a run takes, and how much of it there is: what plans and simulations reckon with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds of one rollout actor and of one learner rank, each with its processor to itself.

    A decoding step takes step_s, and sample_s more for each sample in it. prefill_s: a prompt token, once a group.
    learn_s: an input token of a batch, all optimizer steps' passes together. score_s: an input token of the canary's
    check. update_s: the optimizer steps of a batch, publication included. swap_s: loading a version. verify_s: one
    answer, in one worker. checkpoint_s: one checkpoint. start_s: until the first request is taken.
    """

    step_s: float
    sample_s: float
    prefill_s: float
    learn_s: float
    score_s: float
    update_s: float
    swap_s: float
    verify_s: float
    checkpoint_s: float
    start_s: float

    def decode_s(self, samples: float) -> float:
        """A token of each of so many samples, decoded together."""
        return self.step_s + samples * self.sample_s


@dataclass(frozen=True)
class Workload:
    """prompt, response: mean tokens. fresh: those of a prompt that no other prompt begins with, which engines therefore
    have to compute. spread: standard deviation of the response's length, as a share of its mean. varied: share of
    groups whose samples do not all earn the same.
    """

    prompt: float
    fresh: float
    response: float
    spread: float
    varied: float

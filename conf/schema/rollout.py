"""Sampling for training, and the adapter check."""

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.settings import DECLARED, Rule, setting

HALF = "our choice: half of the limit"

LONGEST = 2**24
"""Largest allowed limit on a length, tokens; no model reads as many."""

CONCURRENT_SAMPLES = 128
"""Sequences that an engine decodes at once by default."""

GROUP_SIZE = Rule(lambda size: 2 <= size <= 1024, "use 2 to 1024: a group of one has no advantage to learn from")


@dataclass(config=DECLARED, frozen=True)
class RolloutConfig:
    """Sampling for training. top_p is 1 and there is no top_k: the engine's log-probabilities of a truncated
    distribution would be meaningless to the learner.
    """

    samples_per_problem: int = setting(8, "the paper", rule=GROUP_SIZE)
    """Responses generated for each problem; together they are a group."""
    max_prompt_tokens: int = setting(512, "Tina (arXiv 2504.15777)", ge=1, le=LONGEST, affects="held_out prompt")
    """Longest prompt, tokens."""
    max_response_tokens: int = setting(512, "our choice", ge=1, le=LONGEST, affects="evaluation rollout")
    """Longest response, tokens."""
    temperature: float = setting(1.0, "Dr. GRPO (arXiv 2503.20783): the policy itself, unsharpened", ge=0.1, le=2)
    """Temperature of the samples; the learner's log-probabilities use the same."""
    max_concurrent_samples: int | None = setting(None, "follows from the plan", ge=1, le=65536, affects="operation")
    """Sequences that an engine decodes at once. When null: 256 on a GPU with at least 10 GB, unless the plan of a run
    expects longer updates with as many; otherwise 128."""
    actors: int | None = setting(None, "follows from the GPUs", ge=1, le=1024, affects="operation")
    """Number of engines, at most one per GPU; on a CPU, each has its own cores. If there are too few GPUs, an engine
    shares one with a learner process. When null: with several GPUs, one on each without a learner process, or one on
    every GPU, whichever has the shorter planned update; with several nodes without a GPU, one on each but the
    learner's; otherwise one."""
    kv_cache_gib: int = setting(2, "our choice", ge=1, le=65536, affects="operation")
    """Whole GiB, as vLLM takes them, of host memory for the KV cache of an engine on the CPU; on a GPU, the cache
    follows from its share."""
    enforce_eager: bool = setting(False, "vLLM", affects="operation")
    """On a GPU, whether vLLM does without compiled code and CUDA graphs: slower, to find out whether one of them is at
    fault. On a CPU it always does."""
    typical_prompt_tokens: int | None = setting(None, HALF, ge=1, le=LONGEST, affects="operation")
    """Mean length of a prompt, tokens. Only the plan's estimate of time uses it, if no run of this recipe has been
    measured."""
    typical_response_tokens: int | None = setting(None, HALF, ge=1, le=LONGEST, affects="operation")
    """Mean length of a response, tokens, for the same estimate."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sample, prompt included."""
        return self.max_prompt_tokens + self.max_response_tokens

    @property
    def concurrent_samples(self) -> int:
        """Sequences that an engine decodes at once. A plan resolves null first."""
        return self.max_concurrent_samples or CONCURRENT_SAMPLES


@dataclass(config=DECLARED, frozen=True)
class AdapterCheckConfig:
    """The adapter check: do the rollouts use the adapter they claim to? Every engine responds to fixed prompts after
    every weight sync, and with synthetic adapters whenever an engine starts.
    """

    problems: int = setting(4, "our choice", ge=1, le=4096, resumable=False)
    """Number of prompts."""
    tokens: int = setting(16, "our choice", ge=1, le=4096, resumable=False)
    """Length of each response, tokens."""
    at_start: str = setting("halt", "our choice: a wrong adapter wastes the run", choices=("halt", "warn"))
    """What a run does if the check at an engine's start fails: halt, or warn, that is go on with an event and a mark
    in the report. warn is for a check that is wrong itself: the one after every weight sync still halts the run."""
    noise_floor: float = setting(0.1, "our choice: three times the 0.03 of bfloat16", gt=0)
    """Mean |Δ log p| below which engine and learner always count as agreeing after a weight sync. Raise it for
    a run that was stopped in error."""

"""Sampling for training, and the adapter check."""

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.settings import DECLARED, Rule, setting

LONGEST = 2**24
"""Largest allowed limit on a length, tokens; no model reads as many."""

CONCURRENT_SAMPLES = 128
"""Sequences that an engine decodes at once by default."""

GROUP_SIZE = Rule(lambda size: 2 <= size <= 1024, "use 2 to 1024: a group of one has no advantage to learn from")


@dataclass(config=DECLARED, frozen=True)
class RolloutConfig:
    """Sampling for training. There is no top_p and no top_k: the learner could not use the engine's log-probabilities
    of a truncated distribution.
    """

    samples_per_problem: int = setting(8, "as in the paper", rule=GROUP_SIZE)
    """Responses per problem. Together they are a group."""
    max_prompt_tokens: int = setting(512, "as in Tina (arXiv 2504.15777)", ge=1, le=LONGEST, affects="held_out prompt")
    """Longest prompt, tokens. Problems with a longer one are filtered."""
    max_response_tokens: int = setting(512, "our choice", ge=1, le=LONGEST, affects="evaluation rollout")
    """Longest response, tokens."""
    temperature: float = setting(1.0, "as in Dr. GRPO (arXiv 2503.20783): the policy itself", ge=0.1, le=2)
    """Sampling temperature. The learner's log-probabilities use the same."""
    max_concurrent_samples: int | None = setting(None, "our choice", ge=1, le=65536, affects="operation")
    """Sequences that an engine decodes at the same time. Null: 256 on a GPU with at least 10 GB, unless planned updates
    get longer; otherwise 128."""
    actors: int | None = setting(None, "our choice", ge=1, le=1024, affects="operation")
    """Number of engines, at most one per GPU. On a CPU, each has its own cores. If there are too few GPUs, an engine
    shares one with a learner process. Null: with several GPUs, one engine on each GPU without a learner process or on
    every GPU, whichever makes planned updates shorter; with several nodes without GPUs, one on each node but the
    learner's; otherwise one."""
    kv_cache_gib: int = setting(2, "our choice", ge=1, le=65536, affects="operation")
    """Host memory for the KV cache of an engine on a CPU, whole GiB. On a GPU, the size follows from the engine's
    share."""
    enforce_eager: bool = setting(False, "vLLM's default", affects="operation")
    """On a GPU: whether vLLM works without compiled code and CUDA graphs. This is slower; use it to find out whether
    they cause a fault. On a CPU it always does."""
    typical_prompt_tokens: int | None = setting(None, "our choice", ge=1, le=LONGEST, affects="operation")
    """Mean prompt length, tokens. Only the plan's time estimate uses it, until a run of this recipe has been measured.
    Null: half of the limit."""
    typical_response_tokens: int | None = setting(None, "our choice", ge=1, le=LONGEST, affects="operation")
    """Mean response length, tokens, for the same estimate. Null: half of the limit."""

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
    """The adapter check tests whether rollouts use the adapter that they claim to use. Every engine responds to fixed
    prompts after every weight sync, and with synthetic adapters whenever an engine starts.
    """

    problems: int = setting(4, "our choice", ge=1, le=4096, resumable=False)
    """Number of prompts."""
    tokens: int = setting(16, "our choice", ge=1, le=4096, resumable=False)
    """Length of each response, tokens."""
    at_start: str = setting("halt", "our choice: a wrong adapter wastes the run", choices=("halt", "warn"))
    """What happens if the check fails at an engine's start: halt stops the run; warn continues, with an event and a
    mark in the report. Use warn if the check itself is wrong. If it fails after a weight sync, the run always stops."""
    noise_floor: float = setting(0.1, "our choice: three times the 0.03 of bfloat16", gt=0)
    """Mean |Δ log p| below which engine and learner always count as agreeing after a weight sync. Raise it if a run was
    stopped in error."""

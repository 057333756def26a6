"""A run's trained policy: settings, base model and the adapter of one checkpoint."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from microbudget_rl.actors.attempt import response_limit
from microbudget_rl.actors.models.adapters import adopt_adapter
from microbudget_rl.actors.models.files import HUB_NAMES, locate, name_on_hub, shape_from_config
from microbudget_rl.actors.models.sizes import cache_bytes, longest_sample
from microbudget_rl.actors.results import find_run
from microbudget_rl.actors.runtime.host_resources import amount, free_memory
from microbudget_rl.actors.runtime.placement import SPINS, Share
from microbudget_rl.actors.storage.checkpoints import target
from microbudget_rl.actors.storage.files import damage
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import GIB, check_build, detect
from microbudget_rl.launch.plan.refusal import engines_alone

CHAT_TOKENS = 4096
"""Most tokens of a conversation, if the model's context allows that."""

CONCURRENT_REPLIES = 8
"""Number of replies that an engine for a few people generates at the same time, and that its KV cache holds."""

BESIDE = 0.7 * GIB
"""Host memory of the server's own process beside the engine's. Measured; the chat's verifier takes less."""


@dataclass(frozen=True)
class Trained:
    """A run's trained policy. model_path: the base model's local folder. checkpoint: the adapter's, links resolved."""

    run: RunRecord
    config: Config
    model_path: str
    checkpoint: Path

    @property
    def adapter(self) -> Path:
        return self.checkpoint / "adapter"

    @property
    def base_name(self) -> str:
        """Id of the base model on the hub, OWNER/NAME, or the name of its local folder."""
        path = self.config.model.path
        return HUB_NAMES.get(path) or name_on_hub(self.config.model)[0] or Path(path).name


def find_trained(folder: Path, checkpoint: str) -> Trained:
    """Return the trained policy of a run. checkpoint: latest, best or a name; empty for the run's result.
    Raises BadInput if run or checkpoint is missing, or the adapter is damaged or does not fit.
    """
    run = find_run(folder)
    checkpoint_folder = target(run.checkpoints.folder / checkpoint) if checkpoint else run.checkpoints.result
    names = [each.name for each in run.checkpoints.all]
    if not names:
        raise BadInput(f"the run in {folder} has no checkpoint yet: resume it until it has one")
    if checkpoint_folder is None or checkpoint_folder.name not in names:
        hint = "; `best` needs validation.every" if checkpoint == "best" else ""
        raise BadInput(f"checkpoint={checkpoint}: the run in {folder} has {', '.join(['latest', *names])}{hint}")
    if (reason := damage(checkpoint_folder, "adapter/")) is not None:
        raise BadInput(
            f"the adapter in {checkpoint_folder} has changed since the run wrote it ({reason}): name another checkpoint"
        )
    config = load([f"adapter={checkpoint_folder / 'adapter'}"])
    model_path = locate(config.model)
    config, _ = adopt_adapter(config, str(checkpoint_folder / "adapter"), model_path)
    return Trained(run, config, model_path, checkpoint_folder)


def talking(trained: Trained) -> tuple[Config, Share]:
    """Return an engine's settings for conversations, and its share of this machine. Raises BadInput without room."""
    config, shape = trained.config, shape_from_config(trained.model_path)
    longest = max(min(CHAT_TOKENS, shape.max_position_embeddings), longest_sample(config))
    evaluated = response_limit(config)
    cache = CONCURRENT_REPLIES * cache_bytes(shape, config.model.dtype, longest)
    change = {
        "eval.max_response_tokens": evaluated,
        "rollout.max_response_tokens": evaluated,
        "rollout.max_prompt_tokens": longest - evaluated,
        "rollout.max_concurrent_samples": CONCURRENT_REPLIES,
        "rollout.kv_cache_gib": math.ceil(cache / GIB),
    }
    config = changed(config, change)
    machine = detect(config.device)
    check_build(config, machine)
    engines = engines_alone(config, shape, machine)
    needed, free = engines.host_bytes + BESIDE, free_memory()
    if free < needed:
        raise BadInput(
            f"model.path={config.model.path}: the host's memory has {amount(free)} free and the engine needs"
            f" {amount(needed)}: end other programs here, or take a larger machine"
        )
    return config, engines.placement.rollouts[0]


def prepare_torch() -> None:
    """Have the libraries write models without progress bars. Call it before torch is imported."""
    os.environ["TQDM_DISABLE"] = "1"
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)

"""The loss written a second time, directly from the papers: loops over Python floats, response by response."""

import math
from dataclasses import dataclass

from microbudget_rl.conf.schema import AlgorithmConfig


@dataclass
class Response:
    """One sample: log-probabilities of its tokens under the current, old, engine's and base policy, and entropies."""

    theta: list[float]
    old: list[float]
    engine: list[float]
    base: list[float]
    entropy: list[float]
    advantage: float


def ratio(response: Response, token: int, level: str) -> float:
    """Clamped at log-ratios of ±20, as the project does throughout."""
    logs = [new - old for new, old in zip(response.theta, response.old, strict=True)]
    log = logs[token] if level == "token" else sum(logs) / len(logs)
    return math.exp(min(20.0, max(-20.0, log)))


def gate(rho: float, advantage: float) -> float:
    """SAPO's σ(τ (ρ − 1))."""
    return 1 / (1 + math.exp(-min(700.0, (1.0 if advantage > 0 else 1.05) * (rho - 1))))


def surrogate(algorithm: AlgorithmConfig, rho: float, theta: float, advantage: float) -> float:
    if algorithm.surrogate == "sapo":
        return 4 / (1.0 if advantage > 0 else 1.05) * gate(rho, advantage) * advantage
    clipped = rho
    if algorithm.clip_low is not None and rho < 1 - algorithm.clip_low:
        clipped = 1 - algorithm.clip_low
    if algorithm.clip_high is not None and rho > 1 + algorithm.clip_high:
        clipped = 1 + algorithm.clip_high
    if algorithm.surrogate == "cispo":
        return clipped * advantage * theta
    value = min(rho * advantage, clipped * advantage)
    if algorithm.dual_clip is not None and advantage < 0:
        value = max(value, algorithm.dual_clip * advantage)
    return value


def correction(response: Response, token: int, method: str) -> float:
    if method == "bypass":
        return 1.0
    logs = [old - engine for old, engine in zip(response.old, response.engine, strict=True)]
    if method == "sequence_mask":
        whole = math.exp(min(20.0, max(-20.0, sum(logs))))
        return whole if whole <= 3.0 else 0.0
    weight = math.exp(min(20.0, max(-20.0, logs[token])))
    if method == "icepop":
        return weight if 0.5 <= weight <= 5.0 else 0.0
    return min(weight, 2.0)


def divisor(aggregation: str, length: int, samples: int, tokens: int, limit: int) -> int:
    return {"token_mean": tokens, "sequence_mean": samples * length, "constant": samples * limit}[aggregation]


def penalty(base: float, theta: float) -> float:
    """k3 up to a difference of 2.5 nats, and from there on the straight line that touches it there."""
    difference = base - theta
    if difference <= 2.5:
        return math.exp(difference) - difference - 1
    return math.exp(2.5) - 2.5 - 1 + (math.exp(2.5) - 1) * (difference - 2.5)


def loss(algorithm: AlgorithmConfig, responses: list[Response], samples: int, tokens: int, limit: int) -> float:
    total = 0.0
    for response in responses:
        for token, theta in enumerate(response.theta):
            rho = ratio(response, token, algorithm.ratio)
            value = -correction(response, token, algorithm.mismatch) * surrogate(
                algorithm, rho, theta, response.advantage
            )
            value += algorithm.kl * penalty(response.base[token], theta)
            value -= algorithm.entropy * response.entropy[token]
            total += value / divisor(algorithm.aggregation, len(response.theta), samples, tokens, limit)
    return total


def slope(algorithm: AlgorithmConfig, response: Response, token: int, samples: int, tokens: int, limit: int) -> float:
    """∂L/∂θ of one token, derived by hand; one-sided nowhere, as random numbers hit no corner."""
    theta, advantage = response.theta[token], response.advantage
    rho = ratio(response, token, algorithm.ratio)
    low = 0.0 if algorithm.clip_low is None else 1 - algorithm.clip_low
    high = math.inf if algorithm.clip_high is None else 1 + algorithm.clip_high
    if algorithm.surrogate == "cispo":
        derivative = min(max(rho, low), high) * advantage
    elif algorithm.surrogate == "sapo":
        opened = gate(rho, advantage)
        derivative = 0.0 if abs(math.log(rho)) >= 20 else 4 * opened * (1 - opened) * rho * advantage
    else:
        flat = (advantage > 0 and rho > high) or (advantage < 0 and rho < low)
        flat = flat or (algorithm.dual_clip is not None and advantage < 0 and rho > algorithm.dual_clip)
        flat = flat or abs(math.log(rho)) >= 20
        derivative = 0.0 if flat else rho * advantage
    value = -correction(response, token, algorithm.mismatch) * derivative
    value += algorithm.kl * (1 - math.exp(min(response.base[token] - theta, 2.5)))
    return value / divisor(algorithm.aggregation, len(response.theta), samples, tokens, limit)

"""The reward functions of two recipes in this folder."""

import json


def fields(prompt, response, gold, **columns):
    """0.25 for a JSON object with the three keys, and 0.25 for each value that is right."""
    try:
        found, wanted = json.loads(response), json.loads(gold)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        return 0.0
    return (1 + sum(found[key] == value for key, value in wanted.items())) / 4


def briefest(samples):
    """More for a right response the shorter it is among the right ones to its problem: 1 at most, 0 for a wrong one."""
    right = sorted(len(each.response) for each in samples if f"\\boxed{{{each.gold}}}" in each.response)
    return [
        1 - right.index(len(each.response)) / len(right) if f"\\boxed{{{each.gold}}}" in each.response else 0.0
        for each in samples
    ]

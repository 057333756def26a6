"""The reward functions of two recipes in this folder."""

import json


def fields(prompt, response, gold, **columns):
    """0.25 for a JSON object with the three keys, and 0.25 for each correct value."""
    try:
        found, wanted = json.loads(response), json.loads(gold)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        return 0.0
    return (1 + sum(found[key] == value for key, value in wanted.items())) / 4


def briefest(samples):
    """1 for the shortest correct response to a problem, less for longer correct ones, 0 for wrong ones."""
    right = sorted(len(each.response) for each in samples if f"\\boxed{{{each.gold}}}" in each.response)
    return [
        1 - right.index(len(each.response)) / len(right) if f"\\boxed{{{each.gold}}}" in each.response else 0.0
        for each in samples
    ]

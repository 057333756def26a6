from conf.suggestions import nearest

KNOWN = ["lora.rank", "lora.alpha", "run.name", "A100-80", "quickstart"]


def test_closest_name_comes_first() -> None:
    assert nearest("lora.rnak", KNOWN)[0] == "lora.rank"


def test_the_last_part_alone_is_enough() -> None:
    assert nearest("rank", KNOWN) == ["lora.rank"]


def test_case_does_not_matter() -> None:
    assert nearest("a100-80", KNOWN) == ["A100-80"]


def test_nothing_is_near_to_nonsense() -> None:
    assert nearest("zzzz", KNOWN) == []

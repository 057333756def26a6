import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.messages import Status
from microbudget_rl.rewards.verify import verify
from microbudget_rl.rewards.verify.__main__ import main
from microbudget_rl.rewards.verify.comparison import compare, decide_by_text
from microbudget_rl.rewards.verify.text.extraction import boxed
from microbudget_rl.rewards.verify.text.spelling import plain
from tests.rewards.corpus import CASES, CORPUS, Case

GOLDS = ["12", r"\frac12", r"\sqrt{2}", "x^2+1", "(1,2)", r"\{1,2\}", "1, 2", r"[0,\infty)", r"\text{even}", "y = 3"]

TOPICS = [pytest.param(cases, id=topic) for topic, cases in CORPUS.items()]


@pytest.mark.parametrize("cases", TOPICS)
def test_text_and_algebra_agree_on_every_case(cases: list[Case]):
    for case in cases:
        verdict = verify(case.gold, rf"\boxed{{{case.answer}}}")
        assert verdict.status is case.status, case
        assert verdict.score == float(case.status is Status.CORRECT)
        gold, answer = plain(case.gold), plain(case.answer)
        assert decide_by_text(gold, answer) in (case.status, None), case
        assert not (gold and answer) or compare(gold, answer) is case.status, case
        if case.status is Status.CORRECT:
            assert all(verify(text, rf"\boxed{{{text}}}").score == 1.0 for text in (case.gold, case.answer)), case


@pytest.mark.long
@pytest.mark.parametrize("cases", TOPICS)
def test_disagreements_with_math_verify_have_a_rule(cases: list[Case]):
    import math_verify

    configs = (math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig())
    for case in cases:
        gold, answer = (math_verify.parse(rf"\boxed{{{text}}}", configs) for text in (case.gold, case.answer))
        agrees = math_verify.verify(gold, answer) == (case.status is Status.CORRECT)
        assert agrees == (case.rule is None), case


BOXES: list[tuple[str, str | None]] = yaml.safe_load((CASES / "boxes.yaml").read_text(encoding="utf-8"))
MANY = "and ".join(rf"\boxed{{{number}}}" for number in range(12)), "11"


@pytest.mark.parametrize(("response", "extracted"), [*BOXES, MANY])
def test_the_last_box_counts_with_boxes_joined_to_it(response: str, extracted: str | None):
    verdict = verify("7", response)
    status = {None: Status.UNPARSABLE, "7": Status.CORRECT}.get(extracted, Status.WRONG)
    assert (verdict.extracted, verdict.status) == (extracted, status)


@pytest.mark.parametrize(
    ("response", "inside", "after"),
    [
        (r"<think>\boxed{7}</think>It is \boxed{7}.", Status.CORRECT, Status.CORRECT),
        (r"\boxed{3}</think>It is \boxed{7}.", Status.CORRECT, Status.CORRECT),
        (r"<think>\boxed{7}</think>It is 7.", Status.CORRECT, Status.UNPARSABLE),
        (r"<think>It is \boxed{7}", Status.CORRECT, Status.UNPARSABLE),
        (r"\boxed{7}</think>no</think>\boxed{3}", Status.WRONG, Status.WRONG),
        (r"It is \boxed{7}", Status.CORRECT, Status.UNPARSABLE),
    ],
)
def test_answers_in_thoughts_count_if_allowed(response: str, inside: Status, after: Status):
    assert verify("7", response).status is inside
    assert verify("7", response, after_thinking=True).status is after


@pytest.mark.parametrize("form", ["{}", "0.({})", "{} g", r"\${}", r"3 \pmod{{{}}}", "{}:3", "{} h 5 min", "{}th"])
def test_numbers_of_any_length_have_a_status(form: str):
    for digits in (990, 5_000):
        answer = plain(form.format("7" * digits))
        assert decide_by_text("12", answer) in (Status.WRONG, Status.UNPARSABLE)
        assert decide_by_text(answer, "12") in (Status.WRONG, Status.UNPARSABLE)


@pytest.mark.parametrize(("gold", "answer"), [(r"\gcd(n,2)", r"2-\gcd(n,2)"), (r"\sin\infty", r"0+\sin\infty")])
def test_incomparable_expressions_are_unparsable(gold: str, answer: str):
    assert verify(gold, rf"\boxed{{{answer}}}").status is Status.UNPARSABLE


@pytest.mark.parametrize(
    ("levels", "other", "status"),
    [(100, "y", Status.WRONG), (100, "x+x", None), (240, "y", Status.UNPARSABLE), (240, "x+x", Status.UNPARSABLE)],
)
def test_sets_in_sets_do_not_double_the_work_at_each_level(levels: int, other: str, status: Status | None):
    gold, answer = (r"\{" * levels + value + r"\}" * levels for value in ("2x", other))
    assert decide_by_text(plain(gold), plain(answer)) is status


MATHEMATICS = st.text(alphabet="0123456789+-*/^{}()[]\\,.;:=<>%$ xyzfracsqrtpiandor|!", max_size=40)


@given(st.one_of(MATHEMATICS, st.text(max_size=60)), st.sampled_from(GOLDS))
def test_text_decides_any_answer_without_an_error(answer: str, gold: str):
    status = decide_by_text(plain(gold), plain(answer))
    assert status in (Status.CORRECT, Status.WRONG, Status.UNPARSABLE, None)
    if gold == "12" and status is Status.CORRECT:
        assert "12" in re.sub(r"\D", "", plain(answer))


@given(
    st.recursive(
        st.text("ab\\0 ", max_size=5),
        lambda inner: st.lists(inner).map(lambda parts: "{" + "".join(parts) + "}"),
        max_leaves=20,
    )
)
def test_boxed_returns_balanced_content_whole(content: str):
    content = content.replace("\\", "\\\\")
    assert boxed(f"text \\boxed{{{content}}} }} more") == content


@pytest.mark.long
def test_command_gives_one_verdict_a_line_in_order(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    lines = [
        '{"gold": "1/2", "response": "\\\\boxed{0.5}"}',
        "not json",
        '{"gold": "}{", "response": "\\\\boxed{3}"}',
        '{"response": "\\\\boxed{3}"}',
        "",
        '{"gold": 7, "response": "\\\\boxed{8} \\ud800"}',
        "[1, 2]",
        '{"gold": null, "response": "\\\\boxed{None}"}',
        '{"gold": "3", "response": "\\\\boxed{3}"}',
    ]
    lines += ['{"gold": "3"}', '{"gold": "3", "response": ""}', '{"gold": "3", "response": ["\\\\boxed{3}"]}']
    rows.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    statuses = ["correct", "invalid", "unparsable", "invalid", "invalid", "wrong", "invalid", "invalid", "correct"]
    statuses += ["invalid", "unparsable", "invalid", "invalid"]
    for more in ([], ["conf=paper"]):
        done = subprocess.run([sys.executable, "-m", "rewards.verify", rows, *more], capture_output=True, text=True)
        verdicts = [json.loads(line) for line in done.stdout.splitlines()]
        assert [verdict["status"] for verdict in verdicts] == statuses
        assert {verdict["score"] for verdict in verdicts if verdict["status"] == "invalid"} == {None}
        assert all([*verdict][:4] == ["score", "status", "extracted", "milliseconds"] for verdict in verdicts)
        assert verdicts[0]["extracted"] == "0.5"
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert f"8 of {len(statuses)}" in done.stderr


@pytest.mark.parametrize("arguments", [["answers.jsonl", "--conf"], ["conf=paper"], ["nowhere.jsonl"]])
def test_command_refuses_a_wrong_call_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert any(word in error for word in ("jsonl", "write conf="))

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Status
from rewards.verify import MAX_ANSWER, boxed, verify

CORRECT, WRONG, UNPARSABLE = Status.CORRECT, Status.WRONG, Status.UNPARSABLE

CORPUS = [
    # integers and signs
    ("12", r"The sum is \boxed{12}", CORRECT),
    ("12", r"\boxed{13}", WRONG),
    ("-28", r"\boxed{-28}", CORRECT),
    ("28", r"\boxed{-28}", WRONG),
    ("7", r"\boxed{007}", CORRECT),
    ("7", r"\boxed{+7}", CORRECT),
    ("12", r"\boxed{ $12$. }", CORRECT),
    # a computation is no answer where its result is asked for
    ("12", r"\boxed{7 + 5}", WRONG),
    ("12", r"\boxed{7+5=12}", WRONG),
    ("12", r"\boxed{13 = 12}", WRONG),
    ("6", r"\boxed{x=5=6}", WRONG),
    ("18", r"\boxed{17+1}", WRONG),
    ("-3", r"\boxed{2 - 5}", WRONG),
    ("12", r"\boxed{3 \cdot 4}", WRONG),
    ("12", r"\boxed{(3)(4)}", WRONG),
    ("12", r"\boxed{24/2}", WRONG),
    ("12", r"\boxed{\frac{24}{2}}", WRONG),
    ("12", r"\boxed{\sum_{i=1}^{12} 1}", WRONG),
    ("10", r"\boxed{1 9}", WRONG),
    ("24", r"\boxed{4!}", WRONG),
    ("12", r"\boxed{x = 12}", CORRECT),
    ("12", r"\boxed{12.0}", CORRECT),
    ("90", r"\boxed{90^\circ}", CORRECT),
    ("12", r"\boxed{12 \text{ m/s}}", CORRECT),
    # words are words, not products of letters
    ("east", r"\boxed{seat}", WRONG),
    ("east", r"\boxed{\text{East}}", CORRECT),
    ("AB", r"\boxed{BA}", WRONG),
    (r"\text{no solution}", r"\boxed{No solution}", CORRECT),
    # which box counts
    ("7", r"First \boxed{3}, no, \boxed{7}", CORRECT),
    ("3", r"First \boxed{3}, no, \boxed{7}", WRONG),
    ("7", r"\boxed{\boxed{7}}", CORRECT),
    ("7", r"\boxed {7}", CORRECT),
    # fractions, decimals, roots
    ("1/2", r"\boxed{\frac{1}{2}}", CORRECT),
    (r"\frac{1}{2}", r"\boxed{0.5}", CORRECT),
    (r"\frac{1}{2}", r"\boxed{\dfrac{2}{4}}", CORRECT),
    (r"\frac12", r"\boxed{\frac{1}{3}}", WRONG),
    (r"2\frac{1}{2}", r"\boxed{2.5}", CORRECT),
    ("0.25", r"\boxed{\tfrac14}", CORRECT),
    ("3.14", r"\boxed{3.15}", WRONG),
    (r"3\sqrt{2}", r"\boxed{\sqrt{18}}", CORRECT),
    (r"\frac{\sqrt{3}}{3}", r"\boxed{\frac{1}{\sqrt{3}}}", CORRECT),
    (r"\sqrt{2}", r"\boxed{\sqrt{3}}", WRONG),
    (r"\frac{1}{1+\frac{1}{2}}", r"\boxed{\frac{2}{3}}", CORRECT),
    # powers, constants, expressions
    ("1024", r"\boxed{2^{10}}", CORRECT),
    (r"2\pi", r"\boxed{\pi \cdot 2}", CORRECT),
    ("(x+1)^2", r"\boxed{x^2+2x+1}", CORRECT),
    ("x+1", r"\boxed{x-1}", WRONG),
    ("3", r"\boxed{x = 3}", CORRECT),
    ("3", r"\boxed{x = 4}", WRONG),
    # thousands separators, units, text
    ("1234567", r"\boxed{1,234,567}", CORRECT),
    ("1234", r"\boxed{1{,}234}", CORRECT),
    ("5", r"\boxed{5\text{ cm}}", CORRECT),
    ("5", r"\boxed{\$5}", CORRECT),
    ("90", r"\boxed{90^\circ}", CORRECT),
    (r"\text{even}", r"\boxed{\text{even}}", CORRECT),
    (r"\text{even}", r"\boxed{\text{odd}}", WRONG),
    # tuples, sets, intervals, matrices
    ("(1,2)", r"\boxed{(1, 2)}", CORRECT),
    ("(1,2)", r"\boxed{(2, 1)}", WRONG),
    (r"\{1,2,3\}", r"\boxed{\{3, 2, 1\}}", CORRECT),
    (r"\{1,2\}", r"\boxed{\{1,2,3\}}", WRONG),
    ("[0,1)", r"\boxed{[0, 1)}", CORRECT),
    ("[0,1)", r"\boxed{(0, 1]}", WRONG),
    (r"(-\infty, 3]", r"\boxed{(-\infty, 3]}", CORRECT),
    (
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & \frac{8}{2} \end{pmatrix}}",
        CORRECT,
    ),
    # hedging
    ("12", r"\boxed{12 or 13}", WRONG),
    ("12", r"\boxed{12, 13}", WRONG),
    # no answer
    ("12", "The answer is 12.", UNPARSABLE),
    ("12", "", UNPARSABLE),
    ("12", r"\boxed{}", UNPARSABLE),
    ("12", r"\boxed{12", UNPARSABLE),
    ("12", r"\boxed{3} and then \boxed{12", UNPARSABLE),
    ("12", r"\boxed 12", UNPARSABLE),
    ("12", "\\boxed{\x00\x01}", UNPARSABLE),
    ("12", "\\boxed{\ud800}", UNPARSABLE),
    ("}{", r"\boxed{12}", UNPARSABLE),
    ("12", "\\boxed{" + "1" * (MAX_ANSWER + 1) + "}", UNPARSABLE),
]


@pytest.mark.parametrize(("gold", "response", "status"), CORPUS)
def test_corpus(gold: str, response: str, status: Status) -> None:
    verdict = verify(gold, response)
    assert verdict.status is status
    assert verdict.score == float(status is CORRECT)
    assert verdict.milliseconds >= 0


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_are_compared_by_value(gold: int, answer: int) -> None:
    assert (verify(str(gold), f"\\boxed{{{answer}}}").status is CORRECT) == (gold == answer)


@given(
    st.recursive(
        st.text("ab\\0 ", max_size=5),
        lambda inner: st.lists(inner).map(lambda parts: "{" + "".join(parts) + "}"),
        max_leaves=20,
    )
)
def test_boxed_returns_balanced_content_whole(content: str) -> None:
    content = content.replace("\\", "\\\\")
    assert boxed(f"text \\boxed{{{content}}} }} more") == content


def test_boxed_counts_no_escaped_brace() -> None:
    assert boxed(r"\boxed{\{1, 2)} and }") == r"\{1, 2)"


@given(st.text())
def test_boxed_survives_any_text(text: str) -> None:
    answer = boxed("\\boxed{" + text)
    assert answer is None or len(answer) <= MAX_ANSWER


@pytest.mark.parametrize(
    "response", ["\\boxed{" * 100_000, "\\boxed{" + "{" * 100_000 + "}" * 100_000, "a" * 10_000_000]
)
def test_huge_responses_have_no_answer(response: str) -> None:
    assert verify("1", response).status is UNPARSABLE


def test_command_gives_one_verdict_a_line_in_order(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [
        '{"gold": "1/2", "response": "\\\\boxed{0.5}"}',
        "not json",
        '{"gold": "}{", "response": "\\\\boxed{3}"}',
        '{"response": "\\\\boxed{3}"}',
        "",
        '{"gold": 7, "response": "\\\\boxed{8} \\ud800"}',
        "[1, 2]",
        '{"gold": "3", "response": "\\\\boxed{3}"}',
    ]
    rows.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    done = subprocess.run([sys.executable, "-m", "rewards.verify", rows], capture_output=True, text=True, check=True)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    statuses = ["correct", "unparsable", "unparsable", "unparsable", "unparsable", "wrong", "unparsable", "correct"]
    assert [verdict["status"] for verdict in verdicts] == [*statuses, "unparsable"]
    assert verdicts[0].keys() == {"score", "status", "extracted", "milliseconds"}
    assert verdicts[0]["extracted"] == "0.5"
    assert not done.stderr


@pytest.mark.parametrize("arguments", [[], ["nowhere.jsonl"]])
def test_command_refuses_a_wrong_call_in_one_line(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "rewards.verify", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "jsonl" in done.stderr

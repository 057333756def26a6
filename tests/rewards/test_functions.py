"""A user's reward function: how it is called, what it may return, and that it cannot answer for the verifier."""

import asyncio
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy
import pytest

from microbudget_rl.actors.messages import Group, Problem, Status
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import CustomRewardConfig, RewardConfig
from microbudget_rl.rewards import killable_worker
from microbudget_rl.rewards.pool import VerifierPool, check_functions, check_reward_functions
from microbudget_rl.rewards.user_function import BadReward, UserFunction, number
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.http_server import serving
from tests.rewards.corpus import sample

pytestmark = pytest.mark.long

PROBLEM = Problem("ab12", "What is 2 + 2?", (1,), "4", columns='{"level": 3, "answer": "4", "topic": "sums"}')

RIGHT = r"\boxed{4}"

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Write:
    """Write a module of its own with a function `reward` of this source. Return the function's reference."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"mine_{abs(hash(request.node.nodeid))}"
    return lambda source: f"{name}:reward" if (tmp_path / f"{name}.py").write_text(source) else ""


def rewarding(reference: str, **settings: float) -> RewardFunction:
    return RewardFunction(RewardConfig(custom=[CustomRewardConfig(reference)], **settings))  # type: ignore[arg-type]


NAMES = ("plain", "waits", "group")

SCRIPTED = """
import asyncio, os, time
class Odd: __float__ = __len__ = tolist = lambda *_: exec('raise KeyboardInterrupt')
def carry_out(source, *given):
    exec(compile(source, __file__, "exec"), globals())
    return reward(*given)
def plain(prompt, response, gold, source, kind):
    return carry_out(source, prompt, response, gold) if kind == "plain" else 0.0
async def waits(prompt, response, gold, source, kind):
    return await carry_out(source, prompt, response, gold) if kind == "waits" else 0.0
async def group(samples):
    columns = samples[0].columns
    found = carry_out(columns["source"], samples) if columns["kind"] == "group" else [0.0] * len(samples)
    return await found if asyncio.iscoroutine(found) else found
"""
"""A module whose functions do what the column `source` says, so that one pool serves many functions."""


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VerifierPool]]:
    """A pool with a long deadline, and one with a short one for what hangs."""
    folder = tmp_path_factory.mktemp("scripted")
    (folder / "scripted.py").write_text(SCRIPTED)
    parts = [CustomRewardConfig(f"scripted:{name}") for name in NAMES]
    patient, hasty = (RewardFunction(RewardConfig(custom=parts, deadline_s=seconds)) for seconds in (30.0, 0.2))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        with VerifierPool(patient, workers=1) as first, VerifierPool(hasty, workers=1) as second:
            yield [first, second]


def group_of(source: str, *responses: str) -> Group:
    """Return the samples of a function's source, `def one: …` for each of them or `def all: …` for their group."""
    kind = "group" if "def all" in source else "waits" if "async" in source else "plain"
    for name, parameters in (("one", "prompt, response, gold"), ("all", "samples")):
        source = source.replace(f"def {name}:", f"def reward({parameters}):")
    problem = replace(PROBLEM, columns=json.dumps({"level": 3, "source": source, "kind": kind}))
    return Group(0, problem, None, tuple(map(sample, responses)))


@pytest.mark.parametrize(
    ("parameters", "expression", "value"),
    [
        ("prompt, response, gold", "len(response)", 5),
        ("prompt, response, gold, level", "level", 3),
        ("prompt, response, gold, *, level, missing=7", "level + missing", 10),
        ("prompt, response, gold, **columns", "len(columns)", 3),
        ("question, answer, gold, **columns", "len(columns)", 2),  # its own `answer` is the response
    ],
)
def test_columns_reach_a_function_by_keyword(write: Write, parameters: str, expression: str, value: float):
    part = UserFunction(write(f"def reward({parameters}):\n    return {expression}\n"))
    assert part("p", ["five!"], "g", PROBLEM.columns) == [value]


@pytest.mark.parametrize(
    ("source", "earned"),
    [
        ("def reward(completions, **kwargs): return [len(text) for text in completions]", [1.0, 2.0]),
        ("def reward(prompts, completions, level): return [each + len(prompts) for each in level]", [5.0, 5.0]),
        ("def reward(completions, answer, log=0): return [1 if answer[0] in c else None for c in completions]", [0, 1]),
        ("async def reward(completions, **_): return [1] * len(completions)", [1.0, 1.0]),
        ("class Two:\n  async def __call__(self, completions): return [1, 2]\nreward = Two()", [1.0, 2.0]),
    ],
)
def test_functions_of_trl_are_called_as_there(write: Write, source: str, earned: list[float]):
    function = UserFunction(write(source))
    assert function("p", ["a", "b4"], "4", PROBLEM.columns) == earned
    assert (function.batched, function.grouped) == (True, False)


def test_functions_of_trl_get_messages_if_the_problem_is_a_conversation(write: Write):
    turns = [{"role": "user", "content": "2 + 2?"}]
    source = "def reward(prompts, completions, **_): return [len(str(prompts) + c['content']) for [c] in completions]"
    given = UserFunction(write(source))("rendered", ["4", "44"], "4", json.dumps({"prompt": turns, "answer": "4"}))
    assert given == [len(str([turns] * 2)) + 1, len(str([turns] * 2)) + 2]


def test_a_missing_column_is_named(write: Write):
    function = UserFunction(write("def reward(prompt, response, gold, difficulty): ..."))
    [fault] = function("p", ["r"], "g", PROBLEM.columns)
    assert re.search(r"'difficulty'.*level", str(fault))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def reward(response, **columns):\n    return 1\n", "three arguments"),
        ("reward = 3\n", "int"),
        ("class Own(BaseException): pass\nraise Own('colour')\n", "Own: colour"),
        ("import os; os._exit(0)\n", "memory_mib"),
        ("while True: pass\n", "within 5 s"),
        ("__file__ = 3\ndef reward(prompt, response, gold):\n    return 1\n", "TypeError"),
    ],
)
def test_uncallable_functions_are_refused_at_once(
    write: Write, source: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    reference = write(source)
    if "while" in source:
        monkeypatch.setattr(killable_worker, "PREPARE_S", 5.0)
    with pytest.raises(BadInput) as refused:
        check_functions(rewarding(reference).config)
    assert all(words in str(refused.value) for words in ("reward.custom", reference, said))


def test_a_users_module_does_nothing_to_this_process(write: Write):
    reference = write(
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20))\nsys.stdout.close()\n"
        "def reward(prompt, response, gold):\n    return len([0] * 10**6)\n"
    )
    check_functions(rewarding(reference).config)
    with pytest.raises(BadInput, match=reference):
        check_reward_functions(rewarding(reference), [PROBLEM])
    assert reference.partition(":")[0] not in sys.modules
    with pytest.raises(BadInput, match=r"builtins:eval.*TypeError"):  # a module without a file
        check_reward_functions(rewarding("builtins:eval"), [PROBLEM])


@pytest.mark.parametrize("value", [1, -2.5, True, numpy.float32(0.5), numpy.array(3.0), 1e6])
def test_numbers_of_any_kind_are_rewards(value: object):
    assert number(value) == float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, [1.0], "0.5", b"1", object(), numpy.ones(2), math.nan, 1e308, 10**400])
def test_any_other_value_is_refused(value: object):
    with pytest.raises(BadReward) as refused:
        number(value)
    assert "async" not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('colour')", "KeyError: 'colour'"),
        ("open('kept.txt', 'w')", "reward.sandbox=false"),
        ("import asyncio; return asyncio.sleep(0)", "async"),
    ],
)
def test_a_failing_function_is_named_at_the_start(write: Write, body: str, said: str):
    reference = write(f"def reward(prompt, response, gold):\n    {body}\n")
    with pytest.raises(BadInput) as refused:
        check_reward_functions(rewarding(reference), [PROBLEM])
    assert all(words in str(refused.value) for words in (reference, said, PROBLEM.columns))
    assert ("sandbox=false" in str(refused.value)) == ("open" in body)


def test_functions_are_tried_on_rows_spread_over_the_data(write: Write):
    reference = write("def reward(prompt, response, gold, level):\n    return 1 / level\n")
    problems = [replace(PROBLEM, columns=f'{{"level": {int(not 40 <= number < 60)}}}') for number in range(100)]
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        check_reward_functions(rewarding(reference), problems)


ATTACKS = """
import json, multiprocessing.connection, os, sys
def patch():
    import microbudget_rl.rewards.verify.comparison as c, rewards.pool as g
    c.compare = g.compare = g.compared = lambda *_: "correct"
def write():
    folder = "/proc/self/fd/"
    pipe = next(int(n) for n in os.listdir(folder) if "socket" in os.path.realpath(folder + n))
    multiprocessing.connection.Connection(pipe).send_bytes(json.dumps(["correct", ""]).encode())
def reward(prompt, response, gold):
    if response[0] in attacks:
        attacks[response[0]]()
    return 1.0
attacks = {"p": patch, "w": write, "c": sys.modules.clear}
"""


def test_a_function_cannot_answer_for_the_verifier(write: Write):
    right, wrong = r"\boxed{\frac{8}{\sqrt{4}}}", (rf"\boxed{{\sqrt{{{n}}}}}" for n in count(17))
    problem, asked = Problem("id", "prompt", (1,), r"\sqrt{16}"), [next(wrong), right]
    for attack in "pwc":
        asked += [attack + next(wrong), *islice(wrong, 5), right]
    with VerifierPool(rewarding(write(ATTACKS)), workers=1) as pool:
        given = list(pool.rewards_all((problem, sample(text)) for text in asked))
    assert [reward.verdict.status is Status.CORRECT for reward in given] == [text == right for text in asked]
    assert [reward.parts["reward"] for text, reward in zip(asked, given, strict=True) if text == right] == [1.0] * 4


def test_a_ruined_worker_is_replaced(write: Write):
    reference = write(
        "ruined = False\ndef reward(prompt, response, gold):\n    global ruined\n    ruined |= response == 'ruin'\n"
        "    if ruined:\n        raise RuntimeError\n    return 1.0\n"
    )
    with VerifierPool(rewarding(reference), workers=1) as pool:
        given = pool.rewards_all((PROBLEM, sample(text)) for text in ("a", "ruin", "b", "c", "d", "e"))
        assert [reward.parts["reward"] for reward in given] == [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("source", "earned"),
    [
        ("async def one: return await asyncio.sleep(0, len(response))", [1.0, 2.0, 3.0]),
        ("def all: return [sorted(s.response for s in samples).index(s.response) for s in samples]", [0, 1, 2]),
        ("async def all: return [float(s.gold) + s.columns['level'] for s in samples]", [7.0] * 3),
    ],
)
def test_functions_may_wait_and_see_the_whole_group(pools: list[VerifierPool], source: str, earned: list[float]):
    group = group_of(source, "a", "bb", "ccc")
    rewards = asyncio.run(pools[0].score(group)).rewards
    [alone] = pools[0].rewards_all([(group.problem, sample("a"))])
    assert [sum(reward.parts[name] for name in NAMES) for reward in rewards] == earned
    assert alone.partial, "a rank among one says nothing"
    assert not any(reward.partial for reward in rewards)


def test_responses_of_a_group_fail_each_in_its_own_way(pools: list[VerifierPool]):
    group = group_of("async def one: return None if response else 1 / 0", "a", "")
    first, second = asyncio.run(pools[0].score(group)).rewards
    assert "returned None" in first.complaints[0].error
    assert "ZeroDivisionError" in second.complaints[0].error


@pytest.mark.parametrize(
    ("source", "masked", "said"),
    [
        ("def one: return 1 / len(response)", [False, True], "ZeroDivisionError"),
        ("def one: return 0.0 if response else len(bytearray(2**34))", [False, True], "memory_mib"),
        ("def one: return 0.0 if response else os._exit(0)", [False, True], "ended its process"),
        ("def one: return 0.0 if response else time.sleep(600)", [False, True], "deadline_s"),
        ("def all: return [1.0]", [True, True], "2 numbers"),
        ("def all: return ['high', 1.0]", [True, False], "str"),
        ("async def one: time.sleep(0 if response else 600)", [True, True], "deadline_s"),
        ("async def all: await asyncio.sleep(600)", [True, True], "deadline_s"),
        ("async def one: return 0.0 if response else exit(1)", [False, True], "SystemExit"),
        ("async def all: raise SystemExit(1)", [True, True], "SystemExit"),
        ("def all: return Odd()", [True, True], "KeyboardInterrupt"),
        ("async def all: [one.cancel() for one in asyncio.all_tasks()]", [True, True], "CancelledError"),
    ],
)
def test_a_failure_masks_the_samples_that_it_concerns(
    pools: list[VerifierPool], source: str, masked: list[bool], said: str
):
    group = group_of(source, RIGHT, "")
    rewards = asyncio.run(pools["600" in source].score(group)).rewards
    assert [reward.masked for reward in rewards] == masked
    failed = [reward for reward in rewards if reward.masked]
    assert {reward.status for reward in failed} == {Status.TIMEOUT if said == "deadline_s" else Status.CRASH}
    [complaint] = {complaint for reward in failed for complaint in reward.complaints}
    assert complaint.function.startswith("scripted:")
    assert said in complaint.error
    assert rewards[0].masked or rewards[0].verdict.status is Status.CORRECT  # held-out figures go by it


def test_only_the_network_needs_async(write: Write):
    with pytest.raises(BadInput, match="async def"):
        check_functions(RewardConfig(custom=[CustomRewardConfig(write("def reward(samples): ..."), network=True)]))


CALLS = """
import asyncio, os, socket
def refused(call):
    try:
        call()
    except OSError:
        return True
async def reward(prompt, response, gold):
    reader, writer = await asyncio.open_connection("localhost", int(gold))
    writer.write(b"GET " + response.encode() + b" HTTP/1.0\\r\\n\\r\\n")
    found = float(await reader.readline())
    walls = refused(lambda: socket.socket(socket.AF_UNIX)), refused(os.fork), refused(lambda: open("/tmp/mine", "w"))
    return found if all(walls) and "TOKEN" not in str(os.environ) else -1.0
"""


def test_a_function_that_asks_for_the_network_has_it_and_nothing_else(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    reward = RewardFunction(RewardConfig(custom=[CustomRewardConfig(write(CALLS), network=True)]))
    with serving(lambda path, *_: (0, {}, [b"%d\n" % len(path)])) as address, VerifierPool(reward, workers=1) as pool:
        problem = replace(PROBLEM, gold=address.rpartition(":")[2])
        group = Group(0, problem, None, tuple(map(sample, ("a", "bb"))))
        rewards = asyncio.run(pool.score(group)).rewards
    assert [one.parts["reward"] for one in rewards] == [1.0, 2.0]

"""A user's part of the reward, as a worker process calls it, and its calls to other machines within limits."""

import asyncio
import importlib
import inspect
import json
import math
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.schema.reward import RemoteConfig
from microbudget_rl.rewards import shipped

HERE = Path(__file__).parent

LARGEST = 1e6
"""Largest absolute reward. Advantages divide by the spread of a group, which overflows for 1e308."""

GIVEN = 3
"""Number of arguments by position: prompt, response and gold answer."""

GROUP = "samples"
"""The only parameter of a function that scores all responses to a problem together."""

SAID = 500
"""Most characters of a failure."""

PAUSES_S = (1.0, 2.0, 4.0)
"""Pauses before further attempts, unless the server asks for longer ones."""

BUSY = (408, 425, 429)
"""Statuses of HTTP below 500 after which another attempt may succeed."""

MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""Errors that another attempt would raise again."""

Result = float | str | None
"""A reward, the failure that there is instead, or None where a deadline has passed."""


class Late(TimeoutError):
    """A call was not over by its deadline."""


class BadReward(Exception):
    """A user's function did not return a reward. The text continues a sentence that begins with the function's name."""


class Calls:
    """Makes calls within limits, in one event loop."""

    def __init__(self, limits: RemoteConfig) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(limits.concurrency)
        self._next = 0.0

    async def run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the result of a call, which is repeated after errors that may pass. Raises Late at the
        deadline of all attempts together, or the last error.
        """
        async with self._free:
            now = asyncio.get_running_loop().time()
            turn = max(self._next, now)
            self._next = turn + 60 / self._limits.per_minute
            await asyncio.sleep(turn - now)
            try:
                async with asyncio.timeout(self._limits.deadline_s) as deadline:
                    return await self._attempts(call)
            except TimeoutError:
                if deadline.expired():
                    raise Late from None
                raise

    async def _attempts(self, call: Callable[[], Awaitable[Any]]) -> Any:
        for pause_s in PAUSES_S:
            try:
                return await call()
            except (BadReward, *MISTAKES):
                raise
            except Exception as error:
                response = getattr(error, "response", None)  # of openai, httpx and requests
                status = getattr(response, "status_code", 500)
                if status < 500 and status not in BUSY:
                    raise
                asked = getattr(response, "headers", {}).get("retry-after", "")
            await asyncio.sleep(max(pause_s, float(asked) if asked.isdecimal() else 0.0))
        return await call()


def most_seconds(limits: RemoteConfig, calls: int) -> float:
    """Return the most seconds that so many calls take together."""
    return -(-calls // limits.concurrency) * limits.deadline_s + calls * 60 / limits.per_minute


def find(key: str, reference: str) -> Callable[..., Any]:
    """Import `module.path:function`, or load what was shipped to this command. Raises BadInput, naming the key."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as in Ray's workers: nothing hides a user's own modules
    if match := shipped.SHIPPED.fullmatch(reference):
        return shipped.load(key, *match.groups())
    module, _, name = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"{key}: cannot import '{reference}' ({in_brief(error)}): give module.path:function, importable from {here}"
        ) from error
    if not callable(function):
        raise BadInput(f"{key}: '{reference}' is a {type(function).__name__}, not a function")
    return function


class UserFunction:
    """A user's function as (prompt, responses, gold, columns) → a Result for each response; columns are the row's, as
    JSON. The function gets the columns that it names, or all with `**`. One with a parameter `completions` is called as
    TRL calls it, with all responses.

    A call raises MemoryError.

    grouped: whether the function compares all responses to a problem.
    batched: whether one call should have them all, as it does or is asynchronous.
    """

    def __init__(self, reference: str, remote: RemoteConfig | None = None) -> None:
        """remote: limits of calls, if it may use the network. Raises BadInput for a function of another form."""
        self._function = function = find("reward.custom", reference)
        self._asynchronous = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
        name = reference.rpartition(":")[2]
        try:
            self._signature = signature = inspect.signature(function)
            self.grouped = [*signature.parameters] == [GROUP]
            self._as_trl = "completions" in signature.parameters
            self._at_once = self.grouped or self._as_trl
            self._given = {} if self._at_once else signature.bind_partial(*range(GIVEN)).arguments
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"reward.custom: '{reference}' does not take three arguments ({error}): define it as {name}(prompt, "
                f"response, gold, **columns), {name}({GROUP}) for all responses to a problem, or {name}(completions, "
                "**columns) as for TRL"
            ) from error
        if remote and not self._asynchronous:
            raise BadInput(f"reward.custom: '{reference}' has network: true, and would wait: define it as `async def`")
        others = [one for name, one in signature.parameters.items() if name not in self._given]
        self._parameter_names = {
            one.name for one in others if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        }
        self._takes_all = any(one.kind is one.VAR_KEYWORD for one in others)
        self.batched = self._asynchronous or self._at_once
        self._calls, self._runner = Calls(remote) if remote else None, asyncio.Runner()
        if self._asynchronous:
            self._runner.get_loop()  # opens sockets, which a worker may not do later

    def __call__(self, prompt: str, responses: Sequence[str], gold: str, columns: str = "{}") -> list[Result]:
        row = json.loads(columns)
        if self.grouped:
            samples = [SimpleNamespace(prompt=prompt, response=text, gold=gold, columns=row) for text in responses]
            calls = [partial(self._function, samples)]
        elif self._as_trl:
            calls = [partial(self._score_as_trl, prompt, responses, row)]
        else:
            calls = [partial(self._score, prompt, text, gold, row) for text in responses]
        if self._asynchronous:  # it may cancel all tasks
            values = spread(attempted(partial(self._runner.run, self._gathered(calls))), len(calls))
        else:
            values = [attempted(call) for call in calls]
        if self._at_once:
            values = spread(values[0], len(responses))
        if self._as_trl:
            values = [0.0 if value is None else value for value in values]  # TRL: it is not for this row
        return [self._result(value) for value in values]

    def _score(self, prompt: str, response: str, gold: str, row: dict[str, Any]) -> Any:
        return self._function(prompt, response, gold, **self._columns(row, prompt, response, gold))

    def _score_as_trl(self, prompt: str, responses: Sequence[str], row: dict[str, Any]) -> Any:
        """Score all responses by one call as TRL makes it: with messages if a column of the row is a conversation."""
        lists = (value for value in row.values() if isinstance(value, list))
        turns = next((value for value in lists if value and isinstance(value[0], dict) and "role" in value[0]), None)
        texts = [[{"role": "assistant", "content": text}] for text in responses] if turns else [*responses]
        given = {name: [value] * len(texts) for name, value in {**row, "prompts": turns or prompt}.items()}
        return self._function(**self._columns(given | {"completions": texts}))

    def _columns(self, row: dict[str, Any], *given: str) -> dict[str, Any]:
        """Return what the function takes of a row. Raises BadReward if it asks for more."""
        names, rest = self._parameter_names, self._takes_all
        chosen = {name: row[name] for name in row if name in names or (rest and name not in self._given)}
        try:
            self._signature.bind(*given, **chosen)
        except TypeError as error:
            raise BadReward(f"asks for a column that the data lack ({error}; they have {', '.join(row)})") from error
        return chosen

    async def _gathered(self, calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
        """Make calls at the same time. Return their values and errors."""

        async def made(call: Callable[[], Awaitable[Any]]) -> Any:
            try:
                return await (self._calls.run(call) if self._calls else call())
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # SystemExit, too, as in `attempted`
                return error

        return await asyncio.gather(*map(made, calls), return_exceptions=True)

    def _result(self, value: Any) -> Result:
        if isinstance(value, MemoryError):
            raise value
        if isinstance(value, Late):
            return None
        try:
            return number(value)
        except BadReward as error:
            return str(error)[:SAID]


_loaded: dict[str, UserFunction] = {}


def load(references: Sequence[str], remote: RemoteConfig | None) -> tuple[dict[str, bool], list[Path]]:
    """Import functions into this process. Return which are batched, each with whether it compares, and their folders.

    Raises BadInput for one that cannot be imported, or called as a part of the reward.
    """
    folders = []
    for reference in references:
        try:
            _loaded[reference] = UserFunction(reference, remote)
            if file := getattr(sys.modules.get(reference.partition(":")[0]), "__file__", None):
                folders.append(Path(file).parent)
        except BadInput:
            raise
        except BaseException as error:  # a user's own module may raise anything
            raise BadInput(f"reward.custom: cannot import '{reference}' ({in_brief(error)}): correct it") from error
    return {name: function.grouped for name, function in _loaded.items() if function.batched}, folders


def call(reference: str, *arguments: Any) -> list[Result]:
    """Call a function that is loaded."""
    return _loaded[reference](*arguments)


def attempted(call: Callable[[], Any]) -> Any:
    """Return the value of a call, or its error: SystemExit too, as the function must not end its worker."""
    try:
        return call()
    except BaseException as error:
        return error


def spread(values: Any, count: int) -> Sequence[Any]:
    """Return a value for each of so many samples of a group: the function's, or the error that there is instead."""
    if isinstance(values, BaseException):
        return [values] * count
    if (isinstance(values, list | tuple) or hasattr(values, "tolist")) and len(values) == count:
        return values
    return [BadReward(f"returned {str(values)[:SAID]} for {count} samples: return a list of {count} numbers")] * count


def number(value: Any) -> float:
    """Return a reward as a number. Raises BadReward for anything else, and for a value that would ruin an update."""
    remedy = "return one number per response"
    if isinstance(value, BaseException):
        raise value if isinstance(value, BadReward) else BadReward(raised(value))
    if inspect.isawaitable(value):
        getattr(value, "close", int)()  # or Python warns that nothing awaited it
        remedy = f"define it as `async def`, or {remedy}"
    try:
        reward = float("a text" if isinstance(value, str | bytes) else value)
    except OverflowError:  # a whole number beyond 1e308
        reward = math.inf
    except BaseException as error:  # of a `__float__` of the user's
        raise BadReward(f"returned {'None' if value is None else f'a {type(value).__name__}'}: {remedy}") from error
    if not abs(reward) <= LARGEST:
        raise BadReward(f"returned {reward:g}: return a finite number from -{LARGEST:,.0f} to {LARGEST:,.0f}")
    return reward


def raised(error: BaseException) -> str:
    """Say what a user's function raised, and in which of its lines."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent != HERE]
    place = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in frames[:1])
    if isinstance(error, PermissionError | BlockingIOError):  # as in the sandbox
        place += ": functions run without network, other processes or writable files; do such work at import, or give "
        place += "network: true for calls to other machines, or reward.sandbox=false to run what a model writes"
    return f"raised {type(error).__name__}: {error}{place}"

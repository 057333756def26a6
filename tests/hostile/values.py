"""Values, keys and YAML that no setting can have, and numbers beyond all proportion."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from conf.schema import Config
from conf.settings import Setting, settings
from tests.hostile.case import Case
from tests.hostile.models import settings_without
from tests.hostile.stock import Stock

WORDS = (
    "plan=2",
    "plan=yes please",
    "plan=[]",
    "plan=null",
    "plan='true'",
    "run.name=???",
    "run.name=[a]",
    "run.name=.",
    "run.name=..",
    "run.name=a/b",
    "run.folder=''",
    "run.folder=???",
    "run.seed='8 '",
    "run.seed=' 8'",
    "run.seed=8_0.5",
    "run.seed=1.5",
    "run.seed=true",
    "run.seed=0x",
    "run={1: 2}",
    "run={true: 2}",
    "run={null: 2}",
    "run={name: {a: 1}}",
    "run=3",
    "run=null",
    "1=2",
    "true=2",
    "=2",
    "run.=2",
    ".run=2",
    "run..seed=2",
    "run.seed.x=2",
    "run[seed]=x",
    "run[0]=2",
    "[0]=2",
    "benchmarks=[{a: 1}]",
    "benchmarks=[1]",
    "benchmarks=[[heldout]]",
    "benchmarks={a: 1}",
    "benchmarks=heldout",
    "benchmarks=[heldout,heldout]",
    "benchmarks=[null]",
    "benchmarks=[hub:../..]",
    "benchmarks[0]=x",
    "simulate=[[1]]",
    "simulate=[{a: 1}]",
    "simulate=[0]",
    "simulate=[1.5]",
    "simulate=['8 ']",
    "simulate=[true]",
    "simulate=[null]",
    "simulate=3",
    "lora.rank='8'",
    "lora.rank='8 '",
    "lora.rank=8.0",
    "lora.rank=true",
    "lora.rank=???",
    "lora.rank=${run.seed}",
    "lora.rank=${nothing}",
    "lora.rank=${lora.rank}",
    "lora.rank=${oc.env:HOME}",
    "lora.rank=${oc.decode:8}",
    "lora.rank=${",
    "lora.rank=!!python/object:os.system",
    "lora.rank=!!int ''",
    "lora.rank=!!float x",
    "lora.rank=!!bool x",
    "lora.rank=!!timestamp x",
    "lora.rank=!!binary x",
    "lora.rank=2020-01-01",
    "lora.rank=*a",
    "lora.rank=[",
    "lora.rank={",
    "lora.rank='",
    "lora.rank=a: b: c",
    "lora.rank=\t",
    "lora.rank=\x00",
    "lora.rank=\x1b[31m",
    "lora.rank=\ud800",
    "lora.target_modules=[q_proj,q_proj]",
    "lora.target_modules=[[q_proj]]",
    "lora.target_modules=q_proj",
    "lora.target_modules={q_proj: 1}",
    "dashboard.host=",
    "dashboard.host=''",
    "dashboard.host=no such host",
    "dashboard.host=a\0b",
    "dashboard.host=999.1.1.1",
    "dashboard.host=[1]",
    "dashboard.port=65536",
    "dashboard.port=-1",
    "dashboard.port=80.5",
    "device=",
    "device=[cpu]",
    "device=none",
    "adapter=x",
    "model.path=",
    "model.path=\x00",
    "model.path=/dev/null",
    "model.path=../..",
    "model.shape={layers: 2}",
    "model.shape=3",
    "reward.custom=[1]",
    "reward.custom=[{function: x}]",
    "reward.custom=[{function: 'os:getcwd', weight: .nan}]",
    "reward.custom=[{function: 'os:getcwd', weight: [1]}]",
    "reward.cosine_correct=[1]",
    "reward.cosine_correct=[.nan,1]",
    "reward.cosine_correct=['1','2']",
    "budget=none",
    "sweep.name=x",
    "conf=../base",
    "conf=",
    "conf=[a]",
    "conf=\x00",
    "x",
    "--x",
    "",
)
SOUND = ("benchmarks=[heldout,", "lora.rank=${run", "lora.rank=8.0", "plan=null", "simulate=", "budget=none")

EXTREME = ("1e308", "1e400", "-1", ".nan", ".inf", "-.inf", "1" + "0" * 12, "9" * 5000, "text", "[1]", "{a: 1}", "true")
"""Given to every setting that is a number."""

LARGE = ("1000000000000", "1e308")
"""Of these, what used to be possible."""

DEEP = "[" * 5000 + "]" * 5000
BOMB = "{a: &a [1,1,1,1,1,1,1,1], b: &b [*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b], "
BOMB += "d: &d [*c,*c,*c,*c,*c,*c,*c,*c], e: &e [*d,*d,*d,*d,*d,*d,*d,*d], f: &f [*e,*e,*e,*e,*e,*e,*e,*e], "
BOMB += "g: &g [*f,*f,*f,*f,*f,*f,*f,*f], h: [*g,*g,*g,*g,*g,*g,*g,*g]}"
YAML = {
    "nested deeply": f"data.parameters={DEEP}",
    "nested deeply in a mapping": f"data.parameters={{a: {DEEP}}}",
    "a bomb of aliases": f"data.parameters={BOMB}",
    "a circle of aliases": "data.parameters=&a {b: *a}",
    "a long text": f"run.name={'a' * 100_000}",
    "a long number": f"run.seed={'9' * 100_000}",
    "a long key": f"{'a' * 100_000}=1",
    "many settings": None,
}


def numbers() -> list[Setting]:
    return [item for item in settings(Config) if {int, float} & {item.kind, *get_args(item.kind)}]


def cases() -> Iterator[Case]:
    for number, word in enumerate(WORDS):
        refused = None if word.startswith(SOUND) else True
        if word.startswith("simulate=["):
            refused = True
        yield Case("values", f"{number} {word[:40]!r}", "run", _plan(word), refused)
    for name, word in YAML.items():
        yield Case("values", name, "run", _plan(word) if word else _many)
    for item in numbers():
        if item.kind in (int, float) or type(None) in get_args(item.kind):
            for value in EXTREME:
                large = value in LARGE
                refused = None if large or (value in ("-1",) and "cosine" in item.path) else True
                yield Case(
                    "extreme numbers", f"{item.path}={value[:20]}", "run", _plan(f"{item.path}={value}"), refused
                )
    for sweep in (
        "ranks=x",
        "ranks=[]",
        "ranks=[[8]]",
        "ranks=[{a: 1}]",
        "seeds=[1,1]",
        "lora.alpha=[a,b]",
        "models=[1]",
        "models=[base,/x]",
        "seeds=1",
        "ranks=[8,8.0]",
        "sweep.name=../x",
        "sweep.name=[1]",
        "ranks=???",
        "run.seed=[null]",
        "seeds=[???]",
        "sweep.minutes=-2",
        "sweep.hours=1e308",
        "benchmarks=[[a]]",
    ):
        yield Case("values", f"sweep {sweep}", "sweep", _sweep(sweep), None if sweep in ("seeds=1",) else True)


def _plan(word: str):
    def prepare(place: Path, stock: Stock) -> list[str]:
        key = word.partition("=")[0]
        taken = {key, *(["model.path"] if key == "model" else [])}
        given = settings_without(stock, *taken)
        return [*given, *([] if key == "plan" else ["plan=true"]), word]

    return prepare


def _many(place: Path, stock: Stock) -> list[str]:
    return [*stock.settings, "plan=true", *(f"run.seed{number}=1" for number in range(5000))]


def _sweep(word: str):
    def prepare(place: Path, stock: Stock) -> list[str]:
        key = {"ranks": "lora.rank", "models": "model.path"}.get(word.partition("=")[0], word.partition("=")[0])
        return [*settings_without(stock, key), f"run.folder={place / 'runs'}", "plan=true", word]

    return prepare

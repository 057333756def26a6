"""Each line that writes, replaces or deletes a file is listed here, with the reason why nobody's file is lost by it.

test_foreign_files.py tries it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]

NEW = "into a file or folder that this process has just made under a name that nobody else has"
TAKEN = "in the folder of a run, an evaluation or a sweep, which is locked, and marked as ours"
OURS = "only after a mark, a layout or the text of the file has told that it is ours"
OTHER = "no file of a person: the kernel's, or a name that the callers choose"

PYTHON = {
    "actors/coordinator/actor.py": (OTHER, "write_text"),
    "actors/coordinator/evaluations.py": (TAKEN, "write_rows"),
    "actors/evaluation/folder.py": (TAKEN, "append_row replace_text write_document"),
    "actors/evaluation/samples.py": (TAKEN, "append_row"),
    "actors/rollout/adapter_transfer.py": (NEW, "write_bytes"),
    "actors/runtime/ray_session.py": (TAKEN, "replace_text unlink"),
    "conf/signals.py": (NEW, "rmtree"),
    "actors/storage/checkpoints.py": (TAKEN, "rename replace unlink write_text"),
    "actors/storage/files.py": (OTHER, "open replace replace_text truncate write_text"),
    "actors/storage/folders.py": (OURS, "rename replace_text rmdir rmtree unlink"),
    "actors/storage/remote.py": (OURS, "mv open pipe_file rm_file"),
    "actors/storage/run_folder.py": (TAKEN, "append_row replace_text unlink write_document write_rows write_text"),
    "learner/cpu_adam.py": (OURS, "unlink"),
    "learner/model/adapter.py": (NEW, "save_file save_pretrained"),
    "learner/training_state.py": (NEW, "save_file write_text"),
    "rewards/killable_worker.py": (NEW, "rmtree"),
    "rewards/problems/__main__.py": (NEW, "open"),
    "rewards/problems/loading.py": (OTHER, "replace_text"),
    "launch/after/artifact.py": (NEW, "copyfile write_text"),
    "launch/after/merged.py": (NEW, "copyfile save_file save_pretrained write_text"),
    "launch/bundled.py": (NEW, "save_pretrained write_text"),
    "launch/chat.py": (NEW, "unlink"),
    "launch/export.py": (NEW, "rename"),
    "launch/plan/calibration.py": (OURS, "write_document"),
    "launch/plan/signal.py": (OURS, "write_document"),
    "launch/push.py": (NEW, "copyfile write_text"),
    "launch/reporting/__init__.py": (OURS, "replace_text"),
    "launch/run.py": ("a folder with nothing in it alone", "rmdir"),
    "launch/sweep_runs/lanes.py": (TAKEN, "open"),
    "launch/sweep_runs/scheduler.py": (TAKEN, "write_document"),
}
"""File → the reason, and the functions that it calls."""

SHELL = {
    "launch/setup.sh": (
        OURS,
        ["touch $unfinished", "-delete", "touch $unfinished $log", "rm $unfinished", ">$stamp", *['>>"$log"'] * 2],
    ),
    ".ci/run": (
        "only if there was no such run when it began",
        ['rm -rf "$run"', *(f'>"$run/{name}"' for name in ("config.yaml", "metrics.jsonl", "summary.json"))],
    ),
}
"""Script → the reason, and the commands."""

FUNCTIONS = {
    *("append_row", "replace_text", "write_document", "write_rows", "write_bytes", "write_text", "truncate"),
    *("unlink", "rmdir", "removedirs", "rmtree", "rename", "renames", "copy", "copy2", "copyfile", "copytree"),
    *("save_file", "save_model", "save_pretrained", "rm", "rm_file", "mv", "pipe_file", "put_file"),
}
COMMANDS = re.compile(
    r"\b(?:rm|mv|cp|ln -|dd|tee|truncate|shred|rsync|touch|sed -i)\b(?: +[^\s;&|')]+)+"
    r"|-delete\b"
    r"|(?<![<=-])>>?\|?(?= ?[\"$\w./~])(?! ?/dev/null)[^\s;)]+"
)


def writes(call: ast.Call) -> str:
    """Return the name of the function if this call writes, replaces or deletes a file; else nothing."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    text = ast.unparse(call)
    if name in ("copy", "rm", "truncate"):
        known = owner != "copy" and (name != "copy" or owner == "shutil")
    elif name == "replace":  # a path's has one argument, a text's has two
        known = bool(owner) and len(call.args) == 1 and not call.keywords
    elif name in ("remove", "move"):
        known = owner in ("os", "shutil")
    elif name == "open":
        modes = [each.value for each in ast.walk(call) if isinstance(each, ast.Constant)]
        created = any(flag in text for flag in ("O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR"))
        known = created or any(
            re.fullmatch(r"[rwxabt+]{1,3}", str(mode)) and {*"wxa+"} & {*str(mode)} for mode in modes
        )
    else:
        known = name in FUNCTIONS
    return name if known else ""


def passed(call: ast.Call) -> set[str]:
    """Return the functions that write and are arguments of a call, to be called elsewhere."""
    return {name for each in call.args if (name := ast.unparse(each).rpartition(".")[2]) in FUNCTIONS - {"copy"}}


def commands(script: Path) -> Iterator[str]:
    for line in script.read_text().splitlines():
        if not line.lstrip().startswith("#"):
            yield from COMMANDS.findall(re.sub(r"\[\[?.*?\]\]?|\$\(\(.*?\)\)", "", line))


def test_python_writes_nowhere_else() -> None:
    found = {}
    for folder in ("actors", "conf", "learner", "rewards", "launch"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            calls = (each for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.Call))
            if names := {name for call in calls for name in {writes(call), *passed(call)} if name}:
                found[str(file.relative_to(ROOT))] = " ".join(sorted(names))
    assert found == {file: names for file, (_, names) in PYTHON.items()}


def test_shell_scripts_write_nowhere_else() -> None:
    scripts = [*(ROOT / "launch").rglob("*.sh"), ROOT / ".ci" / "run"]
    found = {str(script.relative_to(ROOT)): sorted(commands(script)) for script in scripts}
    assert {script: lines for script, lines in found.items() if lines} == {
        script: sorted(lines) for script, (_, lines) in SHELL.items()
    }

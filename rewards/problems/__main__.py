"""Preview a data set: the rows a run would use, and the prompts the model would see.

    python -m rewards.problems SOURCE [conf=NAME] [key=value …]
    python -m rewards.problems conf=NAME [key=value …]
    python -m rewards.problems SOURCE save=FILE.jsonl
    python -m rewards.problems 'data.mixture=[{source: SOURCE, weight: 2}, …]'

Examples:

    python -m rewards.problems file:problems.csv conf=mine
    python -m rewards.problems file:train.jsonl data.eval_source=file:test.jsonl
    python -m rewards.problems reasoning_gym:chain_sum data.size=100
    python -m rewards.problems aime24 save=aime24.jsonl      # for a machine without the Hub

SOURCE is as in data.source, settings are as for launch/run.py, conf=base is the default. The command prints how many
rows are used, why others are filtered, which reference answers are read in an unusual way, and sample prompts. It lists
filtered rows in a new file in the temporary folder. save=FILE.jsonl only writes the rows, with all columns, into a new
file for data.source=file:FILE.jsonl or benchmarks=[file:FILE.jsonl]. SOURCE may then be a benchmark's name.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from microbudget_rl.actors.models.files import load_tokenizer, locate
from microbudget_rl.actors.models.prompts import messages_of
from microbudget_rl.conf.arguments import KEY
from microbudget_rl.conf.catalogue import benchmarks
from microbudget_rl.conf.command import PlainConsole, command
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import not_installed
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import DataConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.rewards.problems import sources
from microbudget_rl.rewards.problems.loading import TRAIN_SEED, split_problems, write_listing
from microbudget_rl.rewards.verify.comparison import unusual
from microbudget_rl.rewards.verify.text.spelling import plain

SAMPLES = 3


@command("problems", __doc__)
def main(arguments: list[str]) -> int:
    """Run the command. Return 0, or 2 for a wrong call or a source that cannot be used."""
    source = "" if KEY.match(arguments[0]) else arguments[0]
    settings = arguments[1:] if source else arguments
    recipe = [] if any(setting.startswith("conf=") for setting in settings) else ["conf=base"]
    file = next((setting.removeprefix("save=") for setting in settings if setting.startswith("save=")), None)
    settings = [setting for setting in settings if not setting.startswith("save=")]
    if file is not None and source in (known := benchmarks()):
        source = known[source].source
    source_setting = [f"data.source={source}"] if source else []
    config = load([*recipe, *source_setting, *settings])
    if not source and (file is not None or (recipe and not config.data.mixture)):
        raise BadInput("no source given: python -m rewards.problems SOURCE [conf=NAME] [key=value …]")
    if file is not None:
        print(f"{source}: {save(config.data, Path(file))} rows in {file}; use it as file:{file}")
        return 0
    if absent := not_installed("transformers", "math_verify"):
        config = changed(config, {"eval.benchmarks": []})  # which are only used as prompts
    tokenizer = None if absent else load_tokenizer(locate(config.model), config.model.path)
    problems, raw, _ = split_problems(config, tokenizer)
    say = PlainConsole().print
    say(f"{config.data.origin}: {len(problems.train)} problems to train on, {len(problems.heldout)} held out")
    for name in config.data.weights if config.data.mixture else ():
        prompt_lengths = sorted(len(one.prompt_ids) for one in problems.train if one.source == name)
        held_out = sum(one.source == name for one in problems.heldout)
        tokens = "" if absent else f"; prompts of {prompt_lengths[len(prompt_lengths) // 2]} tokens at the median"
        say(f"  {name}: {len(prompt_lengths)} to train on, {held_out} held out{tokens}")
    for reason, count in problems.filtered_counts.items():
        say(f"  {count:6} {reason}")
    if problems.filtered:
        listing = Path(tempfile.mkdtemp(prefix="microbudget-"), "problems-left-out.jsonl")
        write_listing(listing, problems.filtered)
        say(f"  listed in {listing}")
    golds = {problem.gold for problem in problems.all if not (problem.grader or problem.gold.isdecimal())}
    readings = {gold: unusual(plain(gold)) for gold in golds}
    for reading, count in Counter(filter(None, readings.values())).items():
        gold = next(gold for gold, read_as in readings.items() if read_as == reading)
        say(f"Warning: {count} reference answers such as {gold!r} are read as {reading}")
    lengths = sorted(len(problem.prompt_ids) for problem in problems.train)
    said = f"Prompts: {lengths[len(lengths) // 2]} tokens at the median, {lengths[-1]} at most"
    say(f"Prompts are shown as messages, and no reference answer is verified, because {absent}" if absent else said)
    of_id = {one.id: one for one in raw}
    for problem in problems.train[:SAMPLES]:
        origin = problem.source and f" of {problem.source}"
        data = config.data.by_source.get(problem.source, config.data)
        messages = messages_of(of_id[problem.id].turns[:-1], problem.text, data)
        prompt = problem.prompt or "\n".join(f"{message['role']}: {message['content']}" for message in messages)
        say(f"\n--- a training problem{origin}, reference answer {problem.gold!r}\n{prompt}")
    return 0


def save(data: DataConfig, file: Path) -> int:
    """Write the rows of data.source into a new file. Return their number. Raises BadInput for a file that exists."""
    if file.suffix != ".jsonl" or os.path.lexists(file) or not file.parent.is_dir():
        raise BadInput(f"save={file}: give a new file NAME.jsonl in a folder that exists")
    rows = sources.read("data.source", data.source, data, TRAIN_SEED)
    with file.open("x", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row.fields, default=str) + "\n" for row in rows)
    return len(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

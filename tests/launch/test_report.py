import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import FORMAT
from microbudget_rl.launch.reporting import attempt, write
from microbudget_rl.launch.reporting.paper import PAPER
from tests.malformed.conftest import files
from tests.run_folders import EVALUATION, HOSTILE, PLASTICITY, edited, write_benchmarked, write_run, write_sweep

pytestmark = pytest.mark.long

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), "")
RUN_SECTIONS = "before-and-after, health, benchmarks, curves, plasticity, ledger, samples, configuration"
RUN_PLOTS = {"learning", "length", "entropy", "kl", "mismatch", "waste"}
PAPER_SECTIONS = "passed, entropy, means, comparisons"
PAPER_FIGURES = ("reward-mean", "validation-pass-1", "response-mean_length", "policy-entropy")
SWEEP_PLOTS = {"finals", "reward-mean", "validation-pass-1", "policy-entropy", "response-mean_length"}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has everything a report can show."""
    folder = write_run(tmp_path_factory.mktemp("reports") / "whole", rank=64, plasticity=PLASTICITY)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(EVALUATION))
    event = {"update": 30, "event": "collapse", "detail": f"adapter_check/entropy went down {HOSTILE}{'long' * 200}"}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    each: dict[str, dict[str, Any]] = {
        f"r{rank}-lr{rate}-seed{seed}": {
            "rank": rank,
            "learning_rate": rate,
            "seed": seed,
            "after": 10 + seed + (rank == 64),
        }
        for rank in (8, 64, 256)
        for rate in (1e-5, 1e-4)
        for seed in range(2)
    }
    each["r256-lr1-seed0"] = {"rank": 256, "learning_rate": 1.0, "seed": 0, "status": "pending"}
    folder = write_sweep(tmp_path_factory.mktemp("reports") / "sweep", each)
    write(folder / "r8-lr1e-05-seed0")
    write(folder)
    return folder


def test_report_of_a_run_has_all_its_parts_in_order(run_folder: Path):
    page = (run_folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    header, _, body = page.partition("</header>")
    assert "It learned: held-out pass@1 rose from" in header
    assert 'id="plot-learning"' in header
    assert ", ".join(re.findall(r'<section id="([\w-]+)"', body)) == RUN_SECTIONS
    assert set(re.findall(r'id="plot-([\w-]+)"', page)) == RUN_PLOTS
    assert "1 sign of collapse" in body


def test_report_needs_no_other_file_and_runs_no_code(run_folder: Path, sweep_folder: Path):
    for folder in (run_folder, sweep_folder):
        page = (folder / "report.html").read_text()
        assert re.findall(r"(?:src|href)=\"(?!#|data:|[\w.-]+/report\.html\")[^\"]*\"", page) == []
        assert "<script" not in page
        assert "default-src 'none'" in page
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)
    page = (run_folder / "report.html").read_text()
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<span>2e-4</span>") == 2  # never broken at its hyphen


def test_report_of_a_sweep_answers_its_question(sweep_folder: Path):
    page = re.sub("</?span>", "", (sweep_folder / "report.html").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    assert "No effect of the rank can be shown here: at learning rate 1e-5, rank 64 ends 4.2 points above" in page
    assert "1 of 5 runs of rank 256 (pending).</h1>" in page
    assert "each at its best learning rate" in page
    assert set(re.findall(r'id="plot-([\w-]+)"', page)) == SWEEP_PLOTS
    assert page.count('href="r8-lr1e-05-seed0/report.html"') == 1
    assert page.count("/report.html") == 1


@pytest.fixture(scope="module")
def benchmarked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's sweep, with one evaluation that goes on."""
    gains = {8: 0.0, 64: 0.1, 256: -0.05}
    folder = tmp_path_factory.mktemp("reports") / "paper"
    write_benchmarked(
        folder, dict.fromkeys(PAPER["models"], gains), unfinished=["Qwen3-0.6B-r64-seed0"], remark=HOSTILE
    )
    write(folder)
    return folder


def test_report_of_benchmarks_has_the_papers_tables_figures_and_claims(benchmarked_folder: Path):
    page = (benchmarked_folder / "report.html").read_text()
    header, _, body = page.partition("</header>")
    assert "&lt;script&gt;" in header.partition("<h1")[0]
    assert ", ".join(re.findall(r'<section id="([\w-]+)"', body)).startswith(PAPER_SECTIONS)
    panels = re.findall(r'id="plot-([\w-]+)-\d"', body)
    assert Counter(panels) == dict.fromkeys(PAPER_FIGURES, len(PAPER["models"]))
    assert 'id="plot-gains"' in header
    row = re.search(r">DeepScaleR-1.5B-Preview</th>(<td.*)", body)
    assert row
    assert re.findall(r">([^<>]*)</td>", row[1])[::2] == ["base", "28.9ᵃ", "53.6ᵃ", "62.5ᵃᵇ"]


def test_markdown_has_whole_tables_and_no_live_text(
    run_folder: Path, sweep_folder: Path, benchmarked_folder: Path, tmp_path: Path
):
    halted = write_run(tmp_path / "halted", after=None, status="halted", reason=HOSTILE)
    write(halted)
    for folder, tables in ((run_folder, 5), (sweep_folder, 3), (benchmarked_folder, 7), (halted, 2)):
        text = (folder / "report.md").read_text()
        read = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        assert sum(block.type == "table_open" for block in read) == tables
        kinds = {part.type for block in read for part in block.children or ()}
        assert kinds == {"text", "strong_open", "strong_close"}
        assert not re.search(r"https://|www\.", text)
    assert "evil.example" in (halted / "report.md").read_text()


def test_a_run_that_has_hardly_begun_has_a_report(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(f"format: {FORMAT}\nrun: {{name: young}}\nrollout: {{}}\nlearner: {{}}\n")
    page = write(tmp_path).read_text()
    assert "No conclusion: the base model was not evaluated" in page
    assert 'class="plot"' not in page


@pytest.mark.parametrize(
    ("name", "kind"),
    [("report.html", "folder"), ("report.md", "text"), ("comparison.html", "link"), ("comparison.md", "text")],
)
def test_only_reports_are_replaced_and_both_files_or_neither(tmp_path: Path, name: str, kind: str):
    folders = [write_run(tmp_path / each, updates=2) for each in "ab"][: 1 if name.startswith("report") else 2]
    page = write(*folders)
    theirs, notes = page.with_name(name), tmp_path / "notes"
    notes.write_text("years of work")
    theirs.unlink()
    if kind == "folder":
        theirs.mkdir()
    else:
        theirs.symlink_to(notes) if kind == "link" else theirs.write_text("years of work")
    with edited(folders[0] / "summary.json") as summary:
        summary["eval"]["final"]["n"] = 2
    before = files(tmp_path)
    with pytest.raises(BadInput, match=name):
        write(*folders)
    assert files(tmp_path) == before


def test_run_does_not_fail_for_its_report(tmp_path: Path):
    folder = write_run(tmp_path / "one")
    assert attempt(folder) == "one/report.html"
    (folder / "metrics.jsonl").write_text("[]\n")
    assert "none (BadInput" in attempt(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM or CHROMIUM.startswith("/snap"):
        pytest.skip("no Chromium here that could look at a report; one in a snap sees no temporary files")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


CLIPPED_TEXTS = """() => [...document.querySelectorAll('.plot text')].filter(text => {
    const box = text.getBoundingClientRect(), svg = text.closest('svg').getBoundingClientRect()
    return box.left < svg.left - 2 || box.right > svg.right + 2 || box.bottom > svg.bottom + 2
}).map(text => text.textContent)"""


@pytest.mark.parametrize(("width", "height"), [(320, 800), (1280, 800)])
def test_report_fits_phone_and_desktop(
    browser: Any, run_folder: Path, sweep_folder: Path, benchmarked_folder: Path, width: int, height: int
):
    paper_plots = 1 + len(PAPER_FIGURES) * len(PAPER["models"])
    for folder, plots in (
        (run_folder, len(RUN_PLOTS)),
        (sweep_folder, len(SWEEP_PLOTS)),
        (benchmarked_folder, paper_plots),
    ):
        page = browser.new_page(viewport={"width": width, "height": height})
        complaints: list[str] = []
        page.on("console", lambda message, kept=complaints: kept.append(message.text))
        page.goto((folder / "report.html").as_uri())
        assert complaints == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator(".plot svg").count() == plots
        assert page.evaluate(CLIPPED_TEXTS) == []
        box, top = (page.locator(place).bounding_box() for place in ("header .plot", "h1"))
        assert box["y"] - top["y"] < height if width < height else box["y"] + box["height"] < height
        page.close()

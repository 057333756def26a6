"""What the doctor says of cards, by the tables that nvidia-smi prints."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.checkup.driver import look_at_cards
from launch.checkup.findings import Finding
from launch.hardware import cards

A40 = "0, GPU-0b, NVIDIA A40, 46068, 45634, [N/A], 580.65.06, 8.6\n"
Install = Callable[[str], Path]


def found(what: str) -> Finding:
    (one,) = [finding for finding in look_at_cards() if finding.what == what]
    return one


def test_a_card_that_is_free(nvidia_smi: Install) -> None:
    nvidia_smi(A40)
    assert [(finding.what, finding.state) for finding in look_at_cards()] == [("driver", "good"), ("card 0", "good")]
    assert found("card 0").text == "NVIDIA A40, 44.6 of 45.0 GiB free, compute capability 8.6"


@pytest.mark.parametrize("version", ["535.183.01", "550.54.15", "570.86.10"])
def test_a_driver_before_cuda_13(version: str, nvidia_smi: Install) -> None:
    nvidia_smi(A40.replace("580.65.06", version))
    assert found("driver").state == "bad"
    assert f"{version}, and CUDA 13 needs 580; where you rent, filter hosts" in found("driver").text


def test_a_compat_library_takes_its_place(nvidia_smi: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(A40.replace("580.65.06", "535.183.01"))
    folder = tmp_path / "compat"
    folder.mkdir()
    for name in ("libcuda.so.1", "libcuda.so.580.65.06"):
        (folder / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{folder}")
    assert found("driver").state == "good"
    assert "with the library of 580.65.06 before it" in found("driver").text


def test_a_card_divided_by_mig(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "1, GPU-1b, NVIDIA A100-SXM4-80GB, 81920, 80994, {}, 580.65.06, 8.0\n"
    nvidia_smi(A40 + row.format("Disabled"))
    assert found("card 1").state == "good"
    nvidia_smi(A40 + row.format("Enabled"))
    assert found("card 1").state == "bad"
    assert "is divided by MIG" in found("card 1").text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0")
    assert found("card 0").state == "good"
    assert found("card 1").state == "good"  # as its remedy says


def test_two_cards_of_which_one_is_in_use(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(A40 + "1, GPU-1b, NVIDIA A40, 46068, 12000, [N/A], 580.65.06, 8.6\n")
    assert [finding.state for finding in look_at_cards()] == ["good", "good", "warning"]
    assert "another process holds the rest" in found("card 1").text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [finding.state for finding in look_at_cards()] == ["good", "good", "good"]
    assert "left out by CUDA_VISIBLE_DEVICES=0" in found("card 1").text


def test_a_card_that_is_not_asked_for_forbids_nothing(nvidia_smi: Install) -> None:
    nvidia_smi(A40 + "1, GPU-1b, Tesla T4, 15360, 15000, [N/A], 580.65.06, 7.5\n")
    assert [finding.state for finding in look_at_cards()] == ["good", "good", "bad"]
    *_, left_out = look_at_cards("A40")
    assert (left_out.state, left_out.text) == ("good", "Tesla T4, left out by device=A40")


@pytest.mark.parametrize(
    ("row", "state", "text"),
    [
        ("0, GPU-0b, Tesla T4, 15360, 15000, [N/A], 580.65.06, 7.5\n", "bad", "vLLM's LoRA needs 8.0"),
        ("0, GPU-0b, NVIDIA GB10, [N/A], [N/A], [N/A], 580.65.06, 12.1\n", "warning", "says nothing of its memory"),
        ("0, GPU-0b, NVIDIA L40, 46068, 45634, [N/A], 580.65.06, 8.9\n", "warning", "not in conf/devices.yaml"),
        ("0, GPU-0b, NVIDIA GeForce RTX 5090, 32607, 32100, [N/A], 580.65.06, 12.0\n", "good", "RTX 5090"),
    ],
)
def test_other_cards(row: str, state: str, text: str, nvidia_smi: Install) -> None:
    nvidia_smi(row)
    assert found("card 0").state == state
    assert text in found("card 0").text


def test_a_driver_that_does_not_answer(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate'\nexit 9\n")
    assert "shows no card and says: NVIDIA-SMI has failed" in found("driver").text
    monkeypatch.setattr(cards, "ANSWER_S", 0.05)
    nvidia_smi("#!/bin/sh\nexec /bin/sleep 60\n")
    assert "does not answer within 0.05 s" in found("driver").text


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert [finding.state for finding in look_at_cards()] == ["warning"]

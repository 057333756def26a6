"""Messages hide credentials, and answer names of other projects with ours."""

import platform
import re
from pathlib import Path

import pytest
import yaml

from microbudget_rl.conf import errors
from microbudget_rl.conf.errors import BadInput, anonymous, in_brief, without_credentials
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import settings
from tests.conftest import ROOT

SECRETS = ("pa5s", "w0rd", "s1gned")
"""No message may hold one of these."""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("s3://me:pa5s@bucket/runs", "s3://…@bucket/runs"),
        ("s3://me:pa5s/?#@w0rd@bucket/runs", "s3://…@bucket/runs"),
        ("simplecache::sftp://pa5s@host/x: cannot be used", "simplecache::sftp://…@host/x: cannot be used"),
        ("for url 'https://host/x?sig=s1gned&e=1' (403)", "for url 'https://host/x?…' (403)"),
        ("the token hf_pa5sw0rdpa5sw0rdpa5sw0rd is old", "the token … is old"),
        ("Bearer key pa5sw0rd is wrong", "Bearer … is wrong"),
        ("http://127.0.0.1:8000/v1, hub:me/data@main and 2?", "http://127.0.0.1:8000/v1, hub:me/data@main and 2?"),
    ],
)
def test_credentials_are_shown_nowhere(text: str, left: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_STORE_API_KEY", "key pa5sw0rd")
    monkeypatch.setenv("SHORT_TOKEN", "is")
    assert without_credentials(text) == left
    assert str(BadInput(text)) == left
    assert in_brief(RuntimeError(text)) == f"RuntimeError: {left}"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/ann/x, /data/ann-2 and Annual", "…/x, /data/…-2 and Annual"),
        ("node7.lab.org:22, node7 and node77", "…:22, … and node77"),
        ("10.0.0.5:6379, 127.0.0.1, 0.0.0.0, x==1.2.3.4, at 9.8.7.6.", "…:6379, 127.0.0.1, 0.0.0.0, x==1.2.3.4, at …."),
        ("fe80::1ff:fe23 aa:bb:cc:dd:ee:ff 2001:db8:0:0:1:2:3:4 12:34:56 std::a", "… … … 12:34:56 std::a"),
        ("GPU-0a1b2c3d-1111-2222-3333-0123456789ab", "GPU-…"),
        ("Serial Number : 1320921, key sk-pa5sw0rdpa5sw0rd", "Serial Number…, key …"),
    ],
)
def test_an_anonymous_text_names_no_user_and_no_machine(text: str, left: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setattr(platform, "node", lambda: "node7.lab.org")
    assert anonymous(text) == left


def test_credentials_are_removed_before_a_message_is_cut():
    said = in_brief(RuntimeError("x" * 250 + " s3://me:pa5s" + "w0rd" * 20 + "@bucket"))
    assert not any(secret in said for secret in SECRETS)


NAMES = yaml.safe_load(Path(errors.__file__).with_name("coming_from.yaml").read_text("utf-8"))


def test_the_table_names_our_settings_as_the_page_does():
    known = {item.path for item in settings(Config)}
    assert {ours for ours in NAMES.values() if " " not in ours} <= known
    assert not known & NAMES.keys()
    page = (ROOT / "docs" / "reference" / "coming-from.md").read_text("utf-8")
    rows = re.findall(r"^\| `(?:[\w.]*\.)?(\w+)` \| (?:none \| (.+)|`([\w.]+)` \|.*) \|$", page, re.MULTILINE)
    assert {(name, why or ours) for name, why, ours in rows} == {(key.split(".")[-1], NAMES[key]) for key in NAMES}


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("num_generations=8", "rollout.samples_per_problem"),
        ("learner.beta=0.1", "algorithm.kl"),
        ("actor_rollout_ref.model.path=x", "model.path"),
        ("custom_reward_function.path=x", "reward.custom"),
        ("--max_seq_length", "rollout.max_response_tokens"),
        ("model.load_in_4bit=true", ""),
    ],
)
def test_foreign_keys_are_answered_with_ours(typed: str, ours: str):
    with pytest.raises(BadInput, match=f"^[^\n]*nearest: {ours}\\b(?!,)" if ours else "no such key; quantized"):
        load(["conf=quickstart", typed])

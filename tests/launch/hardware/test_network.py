import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf.errors import BadInput
from launch.hardware import network
from launch.hardware.network import cluster_warning, public_addresses, require_token


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    return tmp_path


@pytest.mark.parametrize("there", [True, False])
def test_the_token_is_its_users_alone(home: Path, there: bool) -> None:
    if there:
        (home / ".ray").mkdir(mode=0o755)
    require_token()
    assert (home / ".ray").stat().st_mode & 0o777 == 0o700


def test_ray_without_a_token_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(BadInput, match="RAY_AUTH_MODE=disabled: whoever reaches a port of Ray could run code"):
        require_token()
    assert not (home / ".ray").exists()


def test_a_home_where_no_token_can_be_kept_is_refused(home: Path) -> None:
    (home / ".ray").write_text("")
    with pytest.raises(BadInput, match="holds Ray's token and cannot be made yours alone"):
        require_token()


@pytest.mark.parametrize(
    ("addresses", "public"),
    [
        (["127.0.0.1", "10.1.2.3", "192.168.0.4", "172.17.0.1", "100.64.1.1", "::1", "fe80::1%eth0", "fd00::1"], []),
        (["10.1.2.3", "8.8.8.8"], ["8.8.8.8"]),
        (["2600::1"], ["2600::1"]),
    ],
)
def test_addresses_that_the_internet_reaches(
    addresses: list[str], public: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    families = {True: socket.AF_INET6, False: socket.AF_INET}
    cards = {"eth0": [SimpleNamespace(address=address, family=families[":" in address]) for address in addresses]}
    monkeypatch.setattr(network.psutil, "net_if_addrs", lambda: cards)
    assert public_addresses() == public
    assert ("iptables" in cluster_warning()) == bool(public)
    assert all(address in cluster_warning() for address in public)

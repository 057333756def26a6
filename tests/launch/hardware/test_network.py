import socket
from types import SimpleNamespace

import pytest

from launch.hardware import network
from launch.hardware.network import cluster_warning, public_addresses


@pytest.mark.parametrize(
    ("addresses", "public"),
    [
        (["127.0.0.1", "10.1.2.3", "192.168.0.4", "172.17.0.1", "100.64.1.1", "::1", "fe80::1%eth0", "fd00::1"], []),
        (["10.1.2.3", "8.8.8.8", "2600::1"], ["8.8.8.8", "2600::1"]),
    ],
)
def test_addresses_that_the_internet_reaches(
    addresses: list[str], public: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    families = {True: socket.AF_INET6, False: socket.AF_INET}
    found = {"eth0": [SimpleNamespace(address=address, family=families[":" in address]) for address in addresses]}
    monkeypatch.setattr(network.psutil, "net_if_addrs", lambda: found)
    assert public_addresses() == public
    assert ("iptables" in cluster_warning()) == bool(public)
    assert all(address in cluster_warning() for address in public)

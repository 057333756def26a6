import socket
from types import SimpleNamespace

import pytest

from conf.command import PlainConsole
from conf.errors import BadInput
from conf.schema.run import DashboardConfig
from launch.hardware import network
from launch.hardware.network import cluster_warning, dashboard_port, public_addresses


def test_only_a_port_that_was_asked_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(network, "RAYS_PORT", taken)
        with pytest.raises(BadInput, match=f"dashboard.port={taken} on 127.0.0.1"):
            dashboard_port(DashboardConfig(port=taken), PlainConsole())
        found = dashboard_port(DashboardConfig(), PlainConsole())
    said = capsys.readouterr().out
    assert found != taken
    assert (said.count("\n"), str(taken) in said, str(found) in said) == (1, True, True)
    monkeypatch.setattr(network, "RAYS_PORT", found)
    assert dashboard_port(DashboardConfig(), PlainConsole()) == found
    assert not capsys.readouterr().out


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

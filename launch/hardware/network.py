"""Free ports, and a warning about those of a cluster's node: all who have Ray's token can run code through them."""

import ipaddress
import socket
from contextlib import suppress

import psutil
from rich.console import Console

from conf.errors import BadInput
from conf.schema.run import DashboardConfig

RAYS_PORT = 8265
"""Default port of Ray's dashboard."""


def free_port(host: str, port: int, setting: str, remedy: str) -> int:
    """Return a port that a server can use, any free one for 0. Raises BadInput, which names the setting, if taken."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise BadInput(f"{setting}={port} on {host} cannot be used ({error.strerror}): {remedy}") from error


def dashboard_port(asked: DashboardConfig, console: Console) -> int:
    """Return the port for Ray's dashboard: without one in the settings, the first free one from Ray's default on."""
    remedy = "stop the other run or Ray on this machine, or leave it out for the next free port"
    for port in () if asked.port is not None else range(RAYS_PORT, RAYS_PORT + 50):
        with suppress(BadInput):
            found = free_port(asked.host, port, "dashboard.port", remedy)
            if found != RAYS_PORT:
                console.print(f"Port {RAYS_PORT} is taken: Ray's dashboard is at port {found}")
            return found
    return free_port(asked.host, asked.port or 0, "dashboard.port", remedy)


def public_addresses() -> list[str]:
    """Return the addresses of this machine that the internet can reach, unless a firewall blocks them."""
    addresses = [
        address.address.partition("%")[0]
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return [address for address in addresses if ipaddress.ip_address(address).is_global]


def cluster_warning() -> str:
    """Say which ports of this node others can reach, and how to close them."""
    text = "Ray's ports on this node are open on all its addresses to everyone with the token, ~/.ray/auth_token"
    if public := public_addresses():
        text += (
            f"; {' and '.join(public)} can be reached from the internet: admit only your nodes, for instance by\n"
            "    sudo iptables -I INPUT -p tcp --dport 1024:65535 -m conntrack --ctstate NEW"
            " ! -s NETWORK_OF_YOUR_NODES ! -i lo -j DROP"
        )
    return text


if __name__ == "__main__":
    print(cluster_warning())

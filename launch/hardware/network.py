"""Free ports, and a warning about those of a cluster's node: all who have Ray's token can run code through them."""

import ipaddress
import socket

import psutil

from conf.errors import BadInput


def free_port(host: str, port: int, setting: str, remedy: str) -> int:
    """Return a port that a server can use, any free one for 0. Raises BadInput, which names the setting, if taken."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise BadInput(f"{setting}={port} on {host} cannot be used ({error.strerror}): {remedy}") from error


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

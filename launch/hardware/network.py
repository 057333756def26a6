"""Who can reach what a run listens on: Ray lets whoever has its token run code."""

import ipaddress
import os
import socket

import psutil

from conf.documents import path_of
from conf.errors import BadInput

TOKENS = "~/.ray"
"""Where Ray keeps the token, readable by all unless the folder is not."""


def require_token() -> None:
    """Raise BadInput if Ray is told to do without a token, and keep the one of this user from others."""
    if (mode := os.environ.get("RAY_AUTH_MODE", "token")) != "token":
        raise BadInput(f"RAY_AUTH_MODE={mode}: whoever reaches a port of Ray could run code as you: unset it")
    folder = path_of(TOKENS, f"{TOKENS}, where Ray keeps its token")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise BadInput(
            f"{folder} holds Ray's token and cannot be made yours alone ({error.strerror}): give another HOME"
        ) from error


def public_addresses() -> list[str]:
    """Return the addresses of this machine that the internet can reach, unless a firewall stands before them."""
    addresses = [
        address.address.partition("%")[0]
        for card in psutil.net_if_addrs().values()
        for address in card
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return [address for address in addresses if ipaddress.ip_address(address).is_global]


def cluster_warning() -> str:
    """Say what a node of a cluster lets others reach, and how to close it."""
    text = "Ray's ports on this node are open on all its addresses to whoever has the token, ~/.ray/auth_token"
    if public := public_addresses():
        text += (
            f"; {' and '.join(public)} can be reached from the internet: let in your nodes alone, for instance by\n"
            "    sudo iptables -I INPUT -p tcp --dport 1024:65535 -m conntrack --ctstate NEW"
            " ! -s NETWORK_OF_YOUR_NODES ! -i lo -j DROP"
        )
    return text


def main() -> None:
    print(cluster_warning())


if __name__ == "__main__":
    main()

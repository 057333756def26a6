"""Who can reach what a run listens on: Ray lets whoever has its token run code."""

import ipaddress
import socket

import psutil


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

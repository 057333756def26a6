"""A warning about the ports of a cluster's node: everyone who has Ray's token can run code through them."""

import ipaddress
import socket

import psutil


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

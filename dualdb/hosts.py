"""Addresses of one database: a host, or several that stand behind one name."""

import ipaddress
from functools import lru_cache
from typing import List, NamedTuple, Optional, Tuple

#: The most hosts of one database, and the longest name of one.
MOST_HOSTS = 16
LONGEST_HOST = 255


class Address(NamedTuple):
    """Where one server listens.

    Attributes:
        host: A name or address; an IPv6 address without brackets.
        port: The TCP port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Entry(NamedTuple):
    """One entry of a list of hosts, as it is written.

    Attributes:
        host: A name or address; an IPv6 address without brackets.
        port: The port; None if the entry has none.
    """

    host: str
    port: Optional[int]


@lru_cache(maxsize=1024)
def parse_entries(text: str) -> Tuple[Entry, ...]:
    """Parse a list of hosts: ``n1:3306,n2,[2001:db8::1]:3307``.

    An IPv6 address with a port is in brackets; without one it may be.

    Args:
        text: The list; spaces around a comma are ignored.

    Raises:
        ValueError: An entry is empty, too long, or its port is not from 1 to 65535; or
            there are more than ``MOST_HOSTS``.

    Example:
        >>> parse_entries("n1:3306, [::1]")
        (Entry(host='n1', port=3306), Entry(host='::1', port=None))
    """
    entries: List[Entry] = [_entry(part.strip()) for part in text.split(",")]
    if len(entries) > MOST_HOSTS:
        raise ValueError(f"at most {MOST_HOSTS} hosts stand behind one name, not {len(entries)}")
    return tuple(entries)


def addresses(text: str, port: int) -> Tuple[Address, ...]:
    """Return the addresses of a list of hosts, in its order.

    Args:
        text: The list, as for ``parse_entries``.
        port: The port of the entries that have none.

    Raises:
        ValueError: The list is invalid, or has an address twice.
    """
    found = tuple(
        [
            Address(entry.host, port if entry.port is None else entry.port)
            for entry in parse_entries(text)
        ]
    )
    for position, address in enumerate(found):
        if address in found[:position]:
            raise ValueError(f"{address} is named twice")
    return found


def plain_host(host: str) -> str:
    """Return a host in the form in which equal ones are compared: in lower case, an
    address in its shortest spelling, and "localhost" for each loopback address.
    """
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return "localhost" if address.is_loopback else str(address)


def _entry(text: str) -> Entry:
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address] or [address]:port")
        port = rest[1:]
        if rest == ":":
            raise ValueError(f"the port of {text!r} is missing")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            raise ValueError(f"the port of {text!r} is missing")
    if not host:
        raise ValueError("a host is missing: write host, host:port or [address]:port")
    if len(host) > LONGEST_HOST:
        raise ValueError(f"a host has at most {LONGEST_HOST} characters, not {len(host)}")
    if not port:
        return Entry(host, None)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"the port of {host!r} is not a number from 1 to 65535")
    return Entry(host, int(port))

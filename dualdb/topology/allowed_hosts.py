"""Which hosts and ports a row of the shard table may name."""

import ipaddress
import re
from typing import Any, Iterable, List, NamedTuple, Optional, Pattern, Tuple, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: ``host:port`` and ``host:from-to``; an IPv6 address with a port is in brackets.
_WITH_PORTS = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]]+)(:(?P<low>\d+)(-(?P<high>\d+))?)?")


class _Rule(NamedTuple):
    network: Optional[Network]
    name: Optional[Pattern[str]]
    ports: Optional[Tuple[int, int]]
    numeric: bool = False


class AllowedHosts:
    """The hosts that rows may name, so that write access to the shard table does not
    allow redirecting credentials to another host.

    Args:
        hosts: Names, addresses, and networks such as ``10.0.0.0/8``, each optionally
            with a port (``db1:3306``) or a range of ports (``db1:3306-3310``). In a
            name ``*`` and ``?`` match any characters but a dot, without regard to case:
            ``*.db.internal`` allows ``a.db.internal``, and not ``a.b.db.internal``.
            Names are not resolved, but compared in the ASCII form that a resolver is
            asked for. A name with wildcards allows no address, however that is spelled;
            ``10.0.0.*`` allows IPv4 addresses. An IPv6 address or network with a port
            is in brackets: ``[fd00::/8]:3306``. None allows every host.

    Raises:
        ValueError: An entry is none of these.

    Example:
        >>> AllowedHosts(["*.db.internal", "10.0.0.0/8:3306"]).allows("10.1.2.3", 3306)
        True
    """

    def __init__(self, hosts: Optional[Iterable[str]]) -> None:
        if isinstance(hosts, str):
            raise ValueError(f"allowed_hosts must be a list of hosts, not {hosts!r}")
        self._rules: Optional[List[_Rule]] = (
            None if hosts is None else [_rule(host) for host in hosts]
        )

    def allows(self, host: str, port: int) -> bool:
        """Return whether a row may name this host and port.

        Args:
            host: A name or address, in lower case.
            port: The TCP port.
        """
        if self._rules is None:
            return True
        address, name = _address(host), _ascii(host)
        return any(
            _matches(rule, name, address)
            for rule in self._rules
            if rule.ports is None or rule.ports[0] <= port <= rule.ports[1]
        )


def _rule(text: object) -> _Rule:
    wrong = ValueError(f"allowed_hosts: {text!r} is not a host, address or network")
    if not isinstance(text, str):
        raise wrong
    network = _network(text)
    if network is not None:
        return _Rule(network, None, None)
    found = _WITH_PORTS.fullmatch(text)
    if found is None:
        raise wrong
    host = found["host"]
    low = found["low"]
    high = found["high"] or found["low"]
    ports = None if low is None else (int(low), int(high))
    if ports is not None and not 1 <= ports[0] <= ports[1] <= 65535:
        raise wrong
    network = _network(host.strip("[]"))
    if network is not None:
        return _Rule(network, None, ports)
    if not re.fullmatch(r"[\w.*?-]+", host) or re.fullmatch(r"[\d./]+", host):
        raise wrong
    labels = [_ascii(label) for label in host.split(".")]
    if None in labels:
        raise wrong
    host = ".".join(map(str, labels))
    pattern = re.escape(host.lower()).replace(r"\*", "[^.]*").replace(r"\?", "[^.]")
    numeric = _NUMERIC_PATTERN.fullmatch(host) is not None
    return _Rule(None, re.compile(pattern), ports, numeric)


def _network(text: str) -> Optional[Network]:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _address(text: str) -> Any:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _ascii(host: str) -> Optional[str]:
    """Return a name, or a pattern of names, in the form that a resolver is asked for:
    other characters than a dot separate labels, too, and a name has several spellings.
    None if it has no such form.
    """
    if host.isascii():
        return host
    if "*" in host or "?" in host:
        return None
    try:
        return host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None


#: What ``inet_aton`` takes for an address, such as ``2130706433`` and ``0x7f.1``.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\.?", re.IGNORECASE)

#: A pattern that is meant for IPv4 addresses.
_NUMERIC_PATTERN = re.compile(r"[0-9.*?]*[0-9][0-9.*?]*")


def _matches(rule: _Rule, name: Optional[str], address: object) -> bool:
    if rule.network is not None:
        return address is not None and address in rule.network
    if name is None or rule.name is None or rule.name.fullmatch(name) is None:
        return False
    if ":" in name:
        return False
    return _NUMERIC.fullmatch(name) is None or (rule.numeric and address is not None)


ALL_HOSTS = AllowedHosts(None)

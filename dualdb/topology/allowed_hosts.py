"""Which hosts a row of the shard table may name."""

import ipaddress
import re
from fnmatch import fnmatchcase
from typing import Any, Iterable, List, Optional


class AllowedHosts:
    """Which hosts a row may name, so that nobody who can write to the shard table can
    have credentials sent elsewhere.

    Args:
        hosts: names (``*`` and ``?`` as in file names, without regard to case),
            addresses, and networks such as ``10.0.0.0/8``. A name is compared as it
            stands and not looked up. None allows every host.

    Raises:
        ValueError: none of these.
    """

    def __init__(self, hosts: Optional[Iterable[str]]) -> None:
        if isinstance(hosts, str):
            raise ValueError(f"allowed_hosts is a list of hosts, not {hosts!r}")
        self._names: Optional[List[str]] = None if hosts is None else []
        self._networks: List[Any] = []
        for host in hosts or ():
            try:
                self._networks.append(ipaddress.ip_network(host))
            except ValueError:
                if (
                    not isinstance(host, str)
                    or not re.fullmatch(r"[\w.*?-]+", host)
                    or re.fullmatch(r"[\d./]+", host)
                ):
                    raise ValueError(
                        f"allowed_hosts has {host!r}, which is no host, address or network"
                    ) from None
                self._names.append(host.lower())  # type: ignore[union-attr]

    def __contains__(self, host: str) -> bool:
        if self._names is None or any(fnmatchcase(host, name) for name in self._names):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


ALL_HOSTS = AllowedHosts(None)

"""Which URLs and addresses webhooks may reach.

An operator of a project names the URL, and the API server sends the request. Without these rules the request could reach what
only the server can: its own ports, the private network, the metadata service of the cloud (server-side request forgery).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

Network = IPv4Network | IPv6Network

LONGEST_URL = 2000
WELL_KNOWN_PORTS = frozenset({80, 443})  # of those below 1024, which are for system services such as SSH and SMTP
FIRST_FREE_PORT, LAST_PORT = 1024, 65_535

# Metadata services of clouds. They hand out credentials, so no setting opens them.
METADATA = frozenset(
    ip_address(a)
    for a in ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
GLOBAL_UNICAST = IPv6Network("2000::/3")  # everything else of IPv6 is local, multicast, mapped IPv4, NAT64 or not assigned
TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))  # Teredo and 6to4 carry an IPv4 address that we would not check


class BadUrl(ValueError):
    """The URL may not be reached; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be reached if its addresses may."""

    url: httpx.URL
    host: str  # in ASCII, an IPv6 address without brackets
    port: int

    @property
    def is_encrypted(self) -> bool:
        return self.url.scheme == "https"


def parse(text: str) -> Target:
    """Raises BadUrl for what no network setting allows."""
    if len(text) > LONGEST_URL:
        raise BadUrl(f"is longer than {LONGEST_URL} characters")
    if any(not "!" <= c <= "~" for c in text) or "\\" in text:
        raise BadUrl("contains a space, a backslash or a character outside of ASCII; percent-encode it")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise BadUrl("is not a URL, such as https://example.com/hook") from None
    if url.scheme not in ("https", "http"):
        raise BadUrl("must begin with https://")
    if url.userinfo or "@" in text.partition("://")[2].partition("/")[0]:
        raise BadUrl("must not contain a user name or password; the signature tells who sends")
    if url.fragment or "#" in text:
        raise BadUrl("must not contain a fragment (#…), which is never sent")
    host = url.raw_host.decode("ascii").strip("[]")
    if not host or "%" in host:
        raise BadUrl("has no usable host name")
    port = url.port if url.port is not None else (443 if url.scheme == "https" else 80)
    if port not in WELL_KNOWN_PORTS and not FIRST_FREE_PORT <= port <= LAST_PORT:
        raise BadUrl(f"uses port {port}; 80, 443 and those from {FIRST_FREE_PORT} to {LAST_PORT} are allowed")
    return Target(url, host, port)


def check(target: Target, addresses: Sequence[str], networks: Iterable[Network]) -> None:
    """Raises BadUrl unless every address may be reached. `networks` are the private ones that the operator allows."""
    networks = tuple(networks)
    for address in addresses:
        named = _is_named(address, networks)
        if not named and not is_public(address):
            raise BadUrl(
                "names a host with an address that is not public; an operator can allow it with NANOCHAT_WEBHOOK_NETWORKS"
            )
        if not named and not target.is_encrypted:
            raise BadUrl("must begin with https://; http:// is only for networks in NANOCHAT_WEBHOOK_NETWORKS")
    if not addresses:
        raise BadUrl("names a host without an address")


def is_public(address: str) -> bool:
    """Whether the address belongs to a host on the internet, and to no service of the cloud's own."""
    try:
        ip = ip_address(address)  # an address with a scope (fe80::1%eth0) is none of the internet's
    except ValueError:
        return False
    if ip in METADATA or ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    if isinstance(ip, IPv6Address):
        return ip.scope_id is None and ip in GLOBAL_UNICAST and not any(ip in tunnel for tunnel in TUNNELS)
    return True


def _is_named(address: str, networks: Sequence[Network]) -> bool:
    try:
        ip: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    if ip in METADATA or mapped in METADATA:
        return False
    return any(ip in network for network in networks if network.version == ip.version)

"""The way to a server: which proxy and which certificates the environment names for it, and ports of this machine.

A variable that is not for the address that is asked does not matter; one that is, and cannot be used, is an error
that names it.
"""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from metalayer import environment
from metalayer.errors import ConfigError

HTTPX, REQUESTS = "socksio", "socks"
"""Libraries of HTTP, by the package without which they know no SOCKS proxy."""
_CERTIFICATES = {
    HTTPX: ("SSL_CERT_FILE", "SSL_CERT_DIR"),
    REQUESTS: ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}
"""Variables that name certificates, the first that is set counts."""


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that names it."""

    variable: str
    url: str

    def __str__(self) -> str:
        return f"proxy {environment.without_password(self.url)} of {self.variable}"


def proxy_of(url: str, library: str) -> Proxy | None:
    """The proxy to ask for an address; None where it is asked directly.

    Args:
        url: `http://` or `https://`.
        library: that will ask, `HTTPX` or `REQUESTS`.

    Raises:
        ConfigError: a proxy that the library cannot use.
    """
    parts = urlsplit(url)
    named = [_variable(name) for name in (f"{parts.scheme.lower()}_proxy", "all_proxy")]
    found = next((name for name in named if environment.get(name)), "")
    given = environment.get(found)
    if given is None or _is_direct(parts.hostname or "", _port(url)):
        return None
    address = given if "://" in given else f"http://{given}"
    needed = "a proxy as in http://127.0.0.1:3128; or name this host in NO_PROXY"
    environment.url(address, found, ("http", "https", "socks4", "socks4a", "socks5", "socks5h"), needed)
    if address.lower().startswith("socks") and importlib.util.find_spec(library) is None:
        shown = environment.without_password(given)
        raise ConfigError(f"{found}: given {shown!r}, and no SOCKS proxy can be used here; needed is {needed}")
    return Proxy(found, address)


def _variable(name: str) -> str:
    """The spelling that counts of a variable: small letters where it is set so, also where it is empty."""
    return name if name in os.environ else name.upper()


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme.lower() == "https" else 80)


def _is_direct(host: str, port: int) -> bool:
    """Whether NO_PROXY names a host: by its name, a domain that it is in, its address, or a network."""
    host = host.lower()
    for item in (environment.get(_variable("no_proxy")) or "").lower().split(","):
        entry = item.strip().partition("://")[2] or item.strip()
        if entry == "*" or _is_in(host, entry):
            return True
        name, colon, number = entry.rpartition(":")
        if colon and number.isdecimal():
            if int(number) != port:
                continue
            entry = name
        entry = entry.strip("[]").removeprefix("*").removeprefix(".")
        if entry and (host == entry or host.endswith(f".{entry}")):
            return True
    return False


def _is_in(host: str, network: str) -> bool:
    """Whether a host given by its address is in a network, as in 10.0.0.0/8."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False


def certificates(url: str, library: str) -> tuple[str, Path] | None:
    """Variable and path of the certificates to trust for an address; None where the library's own count.

    Raises:
        ConfigError: a variable that names no file, or a file without certificates.
    """
    if urlsplit(url).scheme.lower() != "https":
        return None
    for name in _CERTIFICATES[library]:
        path = environment.path(name)
        if path is None:
            continue
        needed = f"name a file with certificates in PEM, or unset {name}"
        if name == "SSL_CERT_DIR" and path.is_dir():
            return name, path
        try:
            if path.is_file():
                ssl.create_default_context(cafile=str(path))
            elif name == "SSL_CERT_DIR" or not path.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        except (ssl.SSLError, OSError) as error:
            why = "no certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(f"{name}: given {path}: {why}; {needed}") from None
        return name, path
    return None


def context(url: str) -> ssl.SSLContext | bool:
    """What httpx verifies a server with: the certificates that the environment names, else its own."""
    named = certificates(url, HTTPX)
    if named is None:
        return True
    _, path = named
    if path.is_dir():
        return ssl.create_default_context(capath=str(path))
    return ssl.create_default_context(cafile=str(path))


def check_way(url: str, library: str) -> str:
    """How an address is reached, for messages, as in ` by proxy http://... of HTTP_PROXY`; empty if directly.

    Raises:
        ConfigError: a proxy or certificates that cannot be used for it.
    """
    certificates(url, library)
    proxy = proxy_of(url, library)
    return f" by {proxy}" if proxy else ""


def port(given: str | int, name: str) -> int:
    """A port to listen on.

    Raises:
        ConfigError: none that there is.
    """
    text = str(given).strip()
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 65535:
        raise ConfigError(f"{name}: given {text!r}; a port is a number from 1 to 65535")
    return int(text)


def check_listening(host: str, port: int, names: Sequence[str] = ("--host", "--port")) -> None:
    """See that this machine can listen on an address; errors as in `listen`."""
    listen(host, port, names).close()


def listen(host: str, port: int, names: Sequence[str]) -> socket.socket:
    """Listen on an address of this machine.

    Args:
        host: address, no name.
        port: to listen on.
        names: what messages call host and port.

    Raises:
        ConfigError: a host that is no address of this machine, or a port that is in use or not allowed.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise ConfigError(
            f"{names[0]}: given {host!r}; needed is an address of this machine, as in 127.0.0.1, or 0.0.0.0 for all"
        ) from None
    listening = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            why, fix = "something listens on it already", f"end it, or give another {names[1]} from 1 to 65535"
        elif error.errno == errno.EACCES:
            why, fix = "this user may not listen on it", f"give {names[1]} a number from 1024 to 65535"
        else:
            why, fix = error.strerror or str(error), f"give {names[0]} an address of this machine"
        raise ConfigError(f"{names[1]} {port} of {host}: {why}; {fix}") from None
    return listening

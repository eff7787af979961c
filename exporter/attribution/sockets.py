"""Who serves a port of this machine: listening sockets of /proc/net/tcp{,6} -> inodes -> processes that hold them.

`/proc/PID/fd` may be read by the process' own user and by root (ptrace access, proc(5)). Where it cannot be read nobody
is named.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN in the kernel's net/tcp_states.h
_AGAIN = 30.0  # seconds between two searches that find nobody: each looks at all open files of the node
_MOST = 256  # ports remembered

Address = IPv4Address | IPv6Address
Listening = tuple[Address, str]  # where, and the socket's inode


@dataclass(slots=True)
class _Found:
    """Who held these sockets when all processes were last looked at: a path below /proc for each pid."""

    inodes: frozenset[str]
    files: dict[int, str]
    at: float


class Sockets:
    """Processes behind ports, as `proc`, the host's `/proc`, has them; `clock` counts seconds. Not thread-safe."""

    def __init__(self, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = str(proc)
        self._clock = clock
        self._known: dict[tuple[str, int], _Found] = {}

    def holders(self, host: str, port: int) -> frozenset[int]:
        """Pids that hold the socket which answers at host and port; empty where that is not here, or not to be seen.

        Whoever inherited the socket holds it too.
        """
        inodes = self._serving(host, port)
        if not inodes:
            return frozenset()
        found = self._known.get((host, port))
        if found is None or found.inodes != inodes or not self._valid(found):
            found = _Found(inodes, dict(self._search(inodes)), self._clock())
            self._known.pop((host, port), None)
            self._known[host, port] = found
            if len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
        return frozenset(found.files)

    def _serving(self, host: str, port: int) -> frozenset[str]:
        """Inodes of the sockets that a connection to host and port would reach."""
        listening = [*self._listening("tcp", port), *self._listening("tcp6", port)]
        for address in _own_addresses(host) if listening else ():
            for reached in _preferred(address):
                if inodes := frozenset(inode for where, inode in listening if where == reached):
                    return inodes
        return frozenset()

    def _listening(self, file: str, port: int) -> Iterator[Listening]:
        try:
            with Path(f"{self._proc}/net/{file}").open(encoding="ascii", errors="replace") as lines:
                next(lines, None)
                for line in lines:
                    fields = line.split()
                    if len(fields) < 10 or fields[3] != _LISTEN:
                        return  # the kernel lists what listens first; connections may be very many
                    address, _, number = fields[1].partition(":")
                    if int(number, 16) == port:
                        yield _address(address), fields[9]
        except (OSError, ValueError):
            return  # no IPv6, or no such file here

    def _valid(self, found: _Found) -> bool:
        """Whether one of them still holds the socket, or nobody was found a moment ago."""
        if not found.files:
            return self._clock() - found.at < _AGAIN
        links = {f"socket:[{inode}]" for inode in found.inodes}
        found.files = {pid: path for pid, path in found.files.items() if _link(path) in links}
        return bool(found.files)

    def _search(self, inodes: frozenset[str]) -> Iterator[tuple[int, str]]:
        links = {f"socket:[{inode}]" for inode in inodes}
        for pid in _entries(self._proc):
            if pid.isdecimal():
                folder = f"{self._proc}/{pid}/fd"
                held = next((name for name in _entries(folder) if _link(f"{folder}/{name}") in links), None)
                if held is not None:
                    yield int(pid), f"{folder}/{held}"


def _address(text: str) -> Address:
    """An address as /proc/net/tcp has it: words of 32 bits, each in the machine's order."""
    words = (int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    address = ip_address(b"".join(words))
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _own_addresses(host: str) -> list[Address]:
    """Addresses of a name in the order a client tries them, those of this machine alone."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    addresses: list[Address] = []
    for family, _, _, _, where in found:
        address = ip_address(str(where[0]).partition("%")[0])
        if address.is_unspecified:  # connecting to it reaches this machine
            address = ip_address("::1" if address.version == 6 else "127.0.0.1")
        if address not in addresses and (address.is_loopback or _is_own(family, where)):
            addresses.append(address)
    return addresses


def _is_own(family: int, where: tuple[object, ...]) -> bool:
    """Whether the address is one of this machine's: only then packets to it would come from itself. None is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((where[0], 9, *where[2:]))
            return bool(probe.getsockname()[0] == where[0])
    except OSError:
        return False


def _preferred(address: Address) -> Iterator[Address]:
    """What a socket may be bound to so that it answers at an address, as the kernel prefers them."""
    yield address
    if address.version == 4:
        yield IPv4Address(0)
    yield IPv6Address(0)


def _entries(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:  # ended, or another user's
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - a search follows all of the node's open files
    except OSError:
        return ""

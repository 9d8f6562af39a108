"""What this process has started, and where it listens, as Linux tells it in /proc (proc(5))."""

import contextlib
import os
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

PROC = Path("/proc")
_LISTENS = "0A"


def descendants():
    """The command lines of all processes below this one, by number."""
    parents, lines = {}, {}
    for folder in PROC.iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[pid] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return {pid: line for pid, line in lines.items() if os.getpid() in _above(pid, parents)}


def _above(pid, parents):
    found = []
    while (pid := parents.get(pid, 0)) > 0:
        found.append(pid)
    return found


def listening(pids):
    """The addresses and ports on which processes take connections by TCP."""
    sockets = {socket for pid in pids for socket in _sockets(pid)}
    lines = [line.split() for name in ("tcp", "tcp6") for line in (PROC / "net" / name).read_text().splitlines()[1:]]
    return sorted(_place(words[1]) for words in lines if words[3] == _LISTENS and words[9] in sockets)


def _sockets(pid):
    with contextlib.suppress(OSError):
        for name in os.listdir(PROC / str(pid) / "fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(PROC / str(pid) / "fd" / name)
                if target.startswith("socket:["):
                    yield target[8:-1]


def _place(told):
    """Address and port of a hexadecimal pair; the kernel writes addresses as words of the machine's own byte order."""
    address, _, port = told.partition(":")
    packed = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
    if len(packed) == 4:
        return str(IPv4Address(packed)), int(port, 16)
    inner = IPv6Address(packed).ipv4_mapped
    return str(inner or IPv6Address(packed)), int(port, 16)

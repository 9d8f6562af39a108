"""Run one Python program with hardly any rights: the child's half of `code_execution`, a script of its own.

    python -I -S -B _confine.py FOLDER CPU_S MEMORY_BYTES FILE_BYTES PROGRAM ARGUMENT...

It limits itself, gives up every right but those below, and becomes the program. Three parts of Linux do it, none of
which needs root and none of which can be undone, not even by root:

* resource limits (setrlimit): processor time, memory, size of a file, open files, no core dumps;
* Landlock (https://docs.kernel.org/userspace-api/landlock.html): files are readable beneath the interpreter and the
  system's libraries, and writable beneath FOLDER, nowhere else;
* a filter of system calls (https://docs.kernel.org/userspace-api/seccomp_filter.html): those that reckon and use files
  pass, all others fail, so that there is no process, no thread, no socket, no signal, no folder, no mount, no change of
  owner, mode or limits. Of ioctl and fcntl the harmless commands pass: with F_SETOWN and F_SETSIG a pipe would send any
  signal to anybody, and with others root would freeze file systems or make files that cannot be removed.

Where the machine lacks one of them the script ends itself by SIGUSR1 before the program begins; a confined program can
send no signal, so that nothing else ends so.
"""

import ctypes
import os
import platform
import resource
import signal
import sys

__all__ = ["UNCONFINED", "confine"]

UNCONFINED = signal.SIGUSR1
"""What ends the script where the machine cannot confine a program."""

# System calls of x86-64 that pass (arch/x86/entry/syscalls/syscall_64.tbl), in groups.
_FILES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 32, 33, 73, 74, 75, 77, 78, 79, 80, 81, 82, 86)
_MORE_FILES = (87, 88, 89, 217, 221, 257, 262, 263, 264, 265, 266, 267, 269, 270, 271, 292, 293, 316, 332, 439)
_MEMORY = (9, 10, 11, 12, 25)  # without madvise, by which root gives up pages of the machine
_SIGNALS = (13, 14, 15, 131)  # its own handlers
_TIME = (23, 35, 96, 201, 228, 229, 230)
_SELF = (24, 39, 63, 95, 97, 98, 99, 100, 102, 104, 107, 108, 110, 158, 186, 202, 204, 218, 273, 318, 334)
_END = (59, 60, 231)
_ALLOWED = (*_FILES, *_MORE_FILES, *_MEMORY, *_SIGNALS, *_TIME, *_SELF, *_END)
_COMMANDS = {  # system calls of which only these commands pass, which stand in the second argument
    16: (0x5401, 0x5421, 0x5450, 0x5451),  # ioctl: TCGETS, FIONBIO, FIONCLEX, FIOCLEX
    72: (0, 1, 2, 3, 4, 5, 6, 7, 1030),  # fcntl: copies, flags and locks of a descriptor
}
_X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # instructions of the filter: load a word, jump if equal, return
_PASS, _FAIL, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # allow; fail with EPERM; kill the process

_EXECUTE, _WRITE, _READ, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _call(what: str, number: int, *arguments: object) -> int:
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def _limit(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _confine_files(writable: str, readable: list[str]) -> None:
    version = _call("Landlock", 444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    known = (1 << {1: 13, 2: 14}.get(version, 15)) - 1  # what later versions add is no matter of files on disk
    rules = _call("Landlock", 444, ctypes.byref(ctypes.c_uint64(known)), ctypes.c_size_t(8), ctypes.c_uint32(0))
    allowed = dict.fromkeys(readable, _EXECUTE | _READ | _READ_DIR) | {writable: known, "/dev/null": known}
    for path, rights in allowed.items():
        if not os.path.exists(path):
            continue
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _Beneath(rights & known & (-1 if os.path.isdir(path) else _OF_FILES), place)
        _call("Landlock", 445, ctypes.c_int(rules), ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
        os.close(place)
    _call("Landlock", 446, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _confine_calls() -> None:
    count = len(_ALLOWED)
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _X86_64), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for number, commands in _COMMANDS.items():
        steps += [(_EQUAL, 0, len(commands) + 3, number), (_LOAD, 0, 0, 24)]  # other calls jump over this one's part
        steps += [(_EQUAL, len(commands) - index, 0, command) for index, command in enumerate(commands)]
        steps += [(_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _PASS)]
    # Each comparison jumps over what is left of them and over the failure to the pass at the end.
    steps += [(_EQUAL, count - index, 0, number) for index, number in enumerate(_ALLOWED)]
    steps += [(_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _PASS)]
    array = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Filter(len(steps), array)
    _call("seccomp", 157, *map(ctypes.c_ulong, (22, 2)), ctypes.byref(program))


def confine(folder: str, *, cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Give up, for good, all rights of this process but to reckon and to write beneath `folder`.

    Raises OSError where the system has no part of that.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise OSError(f"{sys.platform} on {platform.machine()}")
    _limit(cpu_s, memory_bytes, file_bytes)
    _call("no_new_privs", 157, *map(ctypes.c_ulong, (38, 1, 0, 0, 0)))
    _confine_files(folder, [sys.base_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache"])
    _confine_calls()


def _main(folder: str, *words: str) -> None:
    cpu_s, memory_bytes, file_bytes = map(int, words[:3])
    try:
        confine(folder, cpu_s=cpu_s, memory_bytes=memory_bytes, file_bytes=file_bytes)
    except OSError:
        os.kill(os.getpid(), UNCONFINED)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", *words[3:]])


if __name__ == "__main__":
    _main(*sys.argv[1:])

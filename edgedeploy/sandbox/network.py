"""No network, and no call by which a process reaches into others, enforced by a seccomp filter.

The filter is classic BPF over ``struct seccomp_data`` (``linux/seccomp.h``): a refused call fails with EACCES, so that
libraries which merely try go on.
"""

from __future__ import annotations

import ctypes
import platform
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 13  # SECCOMP_RET_ERRNO | EACCES
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in seccomp_data
#: x86-64 has a second set of numbers from here on (x32); nobody uses it.
_X32 = 0x40000000

#: AUDIT_ARCH and the numbers of: socket, ptrace, process_vm_writev, add_key, keyctl, perf_event_open, bpf,
#: userfaultfd, io_uring_setup (which opens sockets without `socket`), mount, setns, unshare.
_ARCHITECTURES: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, (41, 101, 311, 248, 250, 298, 321, 323, 425, 165, 308, 272)),
    "aarch64": (0xC00000B7, (198, 117, 271, 217, 219, 241, 280, 282, 425, 40, 268, 97)),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def no_network() -> bool:
    """Refuse sockets and reaching into other processes for this process and all it starts.

    Returns:
        False where the kernel, the architecture or an outer sandbox does not allow it; nothing is changed then.
    """
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    code = _filter(*known)
    program = _Program(len(code) // 8, code)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _filter(architecture: int, refused: tuple[int, ...]) -> bytes:
    """Refuse the numbered calls, and every call of another architecture."""
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _REFUSE)]
    steps.append((_LOAD, 0, 0, _NUMBER))
    # Jumps count the steps to skip: each test jumps to the last step, the one before it allows.
    rows = len(refused)
    steps.append((_AT_LEAST, rows + 1, 0, _X32))
    steps += [(_EQUAL, rows - index, 0, number) for index, number in enumerate(refused)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)

"""Memory of the boards that QEMU emulates, for the linker script; all else in the start-up code is alike on all."""

from __future__ import annotations

from dataclasses import dataclass

from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import InputError


@dataclass(frozen=True)
class Board:
    """One of QEMU's machines: addresses, and sizes in KB.

    The vector table lies where the core looks for it after reset. Nothing is mapped right below ``ram``, so that a
    stack at its beginning faults when it overflows. Source: QEMU's "Arm MPS2 and MPS3 boards", tried on each.
    """

    name: str
    vectors: int
    code: int
    code_kb: int
    ram: int
    ram_kb: int
    stack_kb: int = 64


def _mps2(name: str) -> Board:
    return Board(name, vectors=0, code=0x400, code_kb=4095, ram=0x20000000, ram_kb=4096)


BOARDS = {
    board.name: board
    for board in (
        _mps2("mps2-an385"),
        _mps2("mps2-an386"),
        _mps2("mps2-an500"),
        Board("mps2-an505", vectors=0x10000000, code=0x10000400, code_kb=4095, ram=0x38000000, ram_kb=4096),
        Board("mps3-an547", vectors=0, code=0x60000000, code_kb=8192, ram=0x31000000, ram_kb=4096),
    )
}


def emulated_board(profile: DeviceProfile) -> str:
    """Name of the board that stands for a device; empty where QEMU has none, as for every NPU.

    Raises:
        InputError: the profile names a board that is not in `BOARDS`.
    """
    name = "" if profile.hardware.accelerator else profile.hardware.emulated_board
    if name and name not in BOARDS:
        raise InputError(
            f"The profile {profile.name} names an unknown emulated board.",
            found=f"hardware.emulated_board = {name!r}",
            remedy=f"Name one of {', '.join(BOARDS)}, or leave it out.",
        )
    return name

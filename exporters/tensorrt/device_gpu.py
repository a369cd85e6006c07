"""The GPU without a CUDA package: memory, streams and events through libcuda, power through NVML or tegrastats.

This file ships beside ``build.py`` in every TensorRT bundle and stands alone: Python 3.8 or newer and numpy. Both
libraries come with NVIDIA's driver.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

MISSING, FAILED, WRONG_INPUT = 4, 5, 2
_POWER_WORDS = re.compile(r"\b(VDD_IN|VDD_GPU_SOC|POM_5V_IN|VIN_SYS_5V0) (\d+)(?:mW)?/")


class BuildError(Exception):
    """What went wrong, with the exit code that says whose fault it is."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Cuda:
    """The few calls of the CUDA driver API that running an engine takes."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise BuildError(MISSING, f"the NVIDIA driver is not installed: {error}") from error
        self._call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._device = device
        self._buffers: dict[str, tuple[int, int]] = {}
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self.stream = stream.value or 0

    def compute_capability(self) -> str:
        """Major and minor of the first GPU, as "8.7"."""
        return ".".join(str(self._attribute(number)) for number in (75, 76))

    def name(self) -> str:
        """What the driver calls the first GPU."""
        text = ctypes.create_string_buffer(128)
        self._call("cuDeviceGetName", text, 128, self._device)
        return text.value.decode(errors="replace")

    def buffer(self, name: str, size: int) -> int:
        """Address of at least ``size`` bytes on the device, kept under ``name``."""
        address, held = self._buffers.get(name, (0, -1))
        if size <= held:
            return address
        if held >= 0:
            self._call("cuMemFree_v2", ctypes.c_uint64(address))
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(1, size)))
        self._buffers[name] = (pointer.value, size)
        return pointer.value

    def upload(self, name: str, array: np.ndarray) -> int:
        """Copy an array to the buffer ``name`` and return its address."""
        array = np.ascontiguousarray(array)
        address = self.buffer(name, array.nbytes)
        self._call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(address),
            array.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_size_t(array.nbytes),
            ctypes.c_void_p(self.stream),
        )
        self.synchronize()
        return address

    def download(self, address: int, array: np.ndarray) -> None:
        """Fill a contiguous array from the device."""
        self._call(
            "cuMemcpyDtoHAsync_v2",
            array.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_uint64(address),
            ctypes.c_size_t(array.nbytes),
            ctypes.c_void_p(self.stream),
        )
        self.synchronize()

    def synchronize(self) -> None:
        """Wait until the stream is empty."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def event(self) -> ctypes.c_void_p:
        """A new event that takes time stamps."""
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), 0)
        return event

    def record(self, event: ctypes.c_void_p) -> None:
        """Stamp the event when the stream reaches this point."""
        self._call("cuEventRecord", event, ctypes.c_void_p(self.stream))

    def elapsed_ms(self, start: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        """Milliseconds between two events, ``end`` waited for."""
        self._call("cuEventSynchronize", end)
        value = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(value), start, end)
        return float(value.value)

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._lib, function)(*arguments)
        if status:
            raise BuildError(FAILED, f"CUDA: {function} returned error {status}")


class Power:
    """Samples board power in mW while work runs: NVML on a card, tegrastats on a Jetson."""

    def __init__(self) -> None:
        self.source = ""
        self._samples: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Collect samples until the block ends."""
        stop = threading.Event()
        thread = self._nvml(stop) or self._tegrastats(stop)
        try:
            yield
        finally:
            stop.set()
            if thread is not None:
                thread.join(timeout=5)

    def average_mw(self) -> float | None:
        """Mean of what was sampled, None where there is no sensor."""
        return float(np.mean(self._samples)) if self._samples else None

    def _nvml(self, stop: threading.Event) -> threading.Thread | None:
        try:
            nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return None
        handle, value = ctypes.c_void_p(), ctypes.c_uint()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
            return None
        if nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(value)):
            return None

        def sample() -> None:
            while not stop.wait(0.02):
                if nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(value)) == 0:
                    self._samples.append(float(value.value))

        self.source = "NVML"
        return _started(sample)

    def _tegrastats(self, stop: threading.Event) -> threading.Thread | None:
        program = shutil.which("tegrastats")
        if program is None:
            return None
        process = subprocess.Popen([program, "--interval", "100"], stdout=subprocess.PIPE, text=True)

        def sample() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                found = _POWER_WORDS.search(line)
                if found:
                    self._samples.append(float(found.group(2)))
                if stop.is_set():
                    break

        def end() -> None:
            stop.wait()
            process.terminate()
            process.wait()

        self.source = "tegrastats"
        _started(end)
        return _started(sample)


def _started(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread

"""The emulated board: what is said where it cannot be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import InputError, MissingToolError
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.targets.tflite_micro.emulator import EMULATOR, run_emulated
from edgedeploy.tensors import Contract


def job(profile, folder):
    return RunJob(load_profile(profile), ArrayDataset({"x": np.zeros((1, 4), np.float32)}), folder)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    artefact = Artefact("int8", tmp_path, Path("model.tflite"), Contract((), ()), "tflite")
    elf = tmp_path / "fw.elf"
    with pytest.raises(InputError, match="no emulated board"):
        run_emulated(elf, artefact, job("esp32s3", tmp_path))
    with pytest.raises(InputError, match="no firmware"):
        run_emulated(elf, artefact, job("stm32l4r5", tmp_path))
    elf.write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=EMULATOR):
        run_emulated(elf, artefact, job("stm32l4r5", tmp_path))

"""The Keras front end without its extra: it says what to install (what it computes: benchmarks/tflite_keras.py)."""

from __future__ import annotations

import sys

import pytest

from edgedeploy.errors import MissingToolError
from edgedeploy.exporters.tflite_micro.keras import load_keras


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(MissingToolError, match="tf-keras") as raised:
        load_keras(tmp_path / "model.keras")
    assert "edgedeploy[tensorflow]" in raised.value.remedy

"""Accuracy repairs as options of the TFLite Micro backend."""

import pytest
import zoo
from onnxruntime_cases import case

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.exporter import TfliteMicroExporter


@pytest.fixture(scope="module")
def digits():
    images, *_ = zoo.digits_data()
    return case(zoo.digits_cnn(), {"image": images[:110]}, 100)


def test_repairs_are_switched_by_options(digits, tmp_path):
    def made(**options):
        context = digits.context(tmp_path / "-".join(options), "stm32l4r5", options=options)
        return next(TfliteMicroExporter().candidates(context))

    plain, uncorrected, even = made(), made(bias_correction="false"), made(equalize="true")
    assert plain.path.read_bytes() != uncorrected.path.read_bytes()
    facts = even.details["equalization"]
    assert facts["applied"] == (facts["sqnr_db_after"] > facts["sqnr_db_before"])
    assert (plain.path.read_bytes() == even.path.read_bytes()) is not facts["applied"]
    assert "equalization" not in plain.details


def test_a_repair_is_true_or_false(digits, tmp_path):
    with pytest.raises(InputError, match=r"(?s)equalize cannot be 'maybe'.*true or false"):
        next(TfliteMicroExporter().candidates(digits.context(tmp_path, "stm32l4r5", options={"equalize": "maybe"})))

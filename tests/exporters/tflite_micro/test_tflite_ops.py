"""Every op, int8 and int16, against float and between the two interpreters."""

from __future__ import annotations

import numpy as np
import pytest
from tflite_cases import Case, all_cases
from tflite_graphs import quantized
from tflite_oracles import real_output, run_litert, run_micro, sqnr_db

from edgedeploy.exporters.tflite_micro.writer import write_tflite

CASES = all_cases()


def check(case: Case, *, wide: bool) -> None:
    samples = case.samples()
    written = write_tflite(quantized(case.graph, samples, wide=wide))
    found = [operator.builtin for operator in written.model.operators]
    if case.builtins is not None:
        assert found == list(case.builtins)
    micro = run_micro(written, samples)
    if case.litert:
        litert = run_litert(written, samples)
        for ours, theirs in zip(micro, litert, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert np.abs(a.astype(np.int64) - b.astype(np.int64)).max() <= case.tolerance
    reference = case.graph.run(samples)
    for index, port in enumerate(written.outputs):
        got = np.stack([real_output(written, port, run[index]) for run in micro])
        assert got.shape == reference[index].shape
        assert sqnr_db(reference[index], got) >= case.sqnr_db + (15 if wide else 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_op_int8(case):
    check(case, wide=False)


@pytest.mark.parametrize("case", [case for case in CASES if case.wide], ids=lambda case: case.name)
def test_op_int16(case):
    check(case, wide=True)

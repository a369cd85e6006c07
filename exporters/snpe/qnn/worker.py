"""The process that holds Qualcomm's libraries: they may crash, and they log as they like.

``python -m edgedeploy.exporters.snpe.qnn.worker JOB.json``. CPU fallback is disabled twice: in the session, unless the
job allows it there, and always in ONNX Runtime's Python wrapper, which would otherwise retry a refused session on the
CPU in silence.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

from edgedeploy.exporters.snpe.qnn.job import Answer, Job, PlacedNode
from edgedeploy.sandbox.ties import die_with_starter


def main(job_path: str) -> None:
    """Do one job and write its answer."""
    job = Job.load(Path(job_path))
    start = time.perf_counter()
    try:
        session = _session(job)
    except Exception as problem:  # onnxruntime raises a class per status code, without a useful common base
        Answer(error=str(problem), create_s=time.perf_counter() - start).save(Path(job.result))
        return
    created = time.perf_counter() - start
    nodes = tuple(
        PlacedNode(node.name, node.op_type, group.ep_name)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    )
    run_s = _run(session, job)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    Answer("", nodes, created, run_s, rss).save(Path(job.result))


def _session(job: Job) -> Any:
    import onnxruntime as ort
    import onnxruntime_qnn as qnn

    if job.verbose:
        ort.set_default_logger_severity(0)
    name = qnn.get_ep_name()
    ort.register_execution_provider_library(name, qnn.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "0" if job.cpu_fallback else "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for key, value in job.session_config.items():
        options.add_session_config_entry(key, value)
    options.add_provider_for_devices(devices[:1], dict(job.provider_options))
    source = job.model if job.load_by_path else Path(job.model).read_bytes()
    session = ort.InferenceSession(source, sess_options=options, enable_fallback=0)
    session.disable_fallback()
    return session


def _run(session: Any, job: Job) -> tuple[float, ...]:
    import numpy as np

    seconds = []
    from edgedeploy.exporters.snpe.golden import real, stored

    names = [output.name for output in session.get_outputs()]
    last: dict[str, Any] = {}
    for index in range(job.count):
        with np.load(Path(job.samples) / f"{index}.npz", allow_pickle=False) as sample:
            feeds = {name: sample[name] for name in sample.files}
        for name, back in job.states.items() if last else ():
            feeds[name] = stored(real(last[back.output], back.given), back.taken).reshape(feeds[name].shape)
        start = time.perf_counter()
        outputs = session.run(names, feeds)
        seconds.append(time.perf_counter() - start)
        last = dict(zip(names, outputs, strict=True))
        np.savez(Path(job.outputs) / f"{index}.npz", **last)
        print(f"sample {index}", flush=True)
    return tuple(seconds)


if __name__ == "__main__":
    die_with_starter()
    main(sys.argv[1])

"""Which networks NVIDIA's parser and builder take whole, what becomes INT8, and how large the engines are.

    python benchmarks/tensorrt_engines.py [--nets lite0,resnet50] [--sm SM86,SM89,SM120]

For each network: float16, every dense node in INT8 (the gate's question), and the placement that ships for an RTX
target (the first candidate). Every engine is built twice and compared byte for byte. No GPU is used.
EfficientNet-Lite0 and MiniLM are trained; the others have random weights, which changes neither parsing nor size.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.quantizer.quantize import quantize
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import EdgeDeployError
from edgedeploy.exporters.tensorrt.exporter import TensorRtExporter
from edgedeploy.exporters.tensorrt.float16 import to_float16
from edgedeploy.exporters.tensorrt.gate import check
from edgedeploy.exporters.tensorrt.placement import dense
from edgedeploy.graph.graph import Graph, graph_from_onnx
from edgedeploy.interfaces import ExportContext

TARGETS = {"SM86": "rtx3090", "SM89": "rtx4090", "SM120": "rtx5090"}
SAMPLES = 4


class UNet(nn.Module):
    """Two levels, skips by concatenation, transposed convolutions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.a, self.b, self.c = _double(3, width), _double(width, 2 * width), _double(2 * width, 4 * width)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.d, self.e = _double(4 * width, 2 * width), _double(2 * width, width)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        a = self.a(x)
        b = self.b(torch.max_pool2d(a, 2))
        c = self.c(torch.max_pool2d(b, 2))
        d = self.d(torch.cat([self.up1(c), b], 1))
        return self.out(self.e(torch.cat([self.up2(d), a], 1)))


class Recurrent(nn.Module):
    """Two GRU layers and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(40, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.head(self.gru(x)[0][:, -1])


def _double(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inside, outside):
        layers += [nn.Conv2d(width, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers)


def _resnet50() -> nn.Module:
    from pytorchcv.models.resnet import resnet50

    return resnet50()


def _mobilenetv2() -> nn.Module:
    from pytorchcv.models.mobilenetv2 import mobilenetv2_w1

    return mobilenetv2_w1()


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=6,
                                               intermediate_size=1536, num_labels=1000))  # fmt: skip


def _zoo(name: str) -> nn.Module:
    import zoo

    return getattr(zoo, name)()


IMAGE = (3, 224, 224)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lite0": (lambda: _zoo("efficientnet_lite0"), IMAGE),
    "resnet50": (_resnet50, IMAGE),
    "mobilenetv2": (_mobilenetv2, IMAGE),
    "minilm": (lambda: _zoo("minilm"), ()),
    "vit": (_vit, IMAGE),
    "unet": (UNet, (3, 128, 128)),
    "gru": (Recurrent, (50, 40)),
}


def captured(name: str) -> tuple[Graph, dict[str, np.ndarray]]:
    """The canonical graph and a few samples."""
    torch.manual_seed(0)
    build, shape = NETS[name]
    if name == "minilm":
        import zoo

        arrays = zoo.minilm_inputs(SAMPLES)
        example = tuple(torch.from_numpy(value[:1]) for value in arrays.values())
    else:
        data = np.random.default_rng(0).standard_normal((SAMPLES, *shape)).astype(np.float32)
        arrays, example = {"input": data}, (torch.from_numpy(data[:1]),)
    buffer = io.BytesIO()
    program = torch.onnx.export(build().eval(), example, dynamo=True, opset_version=20, verbose=False,
                                external_data=False)  # fmt: skip
    program.save(buffer)
    graph = graph_from_onnx(onnx.load_from_string(buffer.getvalue()))
    return graph, {spec.name: value for spec, value in zip(graph.inputs, arrays.values(), strict=True)}


def built(model: onnx.ModelProto, sm: str) -> tuple[str, float, float | None, int, int]:
    """Build twice: (verdict, MB, share of dense nodes in INT8, int8 nodes, compute nodes)."""
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            path = Path(folder) / "engine"
            report = check(model, compute_capability=sm, engine=path)
            if not report.accepted:
                refusal = report.refusals[0]
                return f"REFUSED {refusal.op_type} {refusal.node}: {refusal.reason}", 0.0, None, 0, 0
            digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    verdict = "identical" if len(digests) == 1 else "DIFFERS"
    return (
        verdict,
        (report.engine_bytes or 0) / 1e6,
        report.int8_share,
        sum(n.int8 for n in report.nodes),
        len(report.nodes),
    )


def shipped(graph: Graph, calibration: Calibration, target: str, folder: Path) -> str:
    """The candidate an RTX target gets first."""
    try:
        artefact = next(
            TensorRtExporter().candidates(ExportContext(None, graph, load_profile(target), calibration, folder))
        )  # type: ignore[arg-type]
    except EdgeDeployError as error:
        return error.what
    share = artefact.details["gate"].get("dense_int8_share")
    note = f"{share:.0%} of dense int8" if share is not None else "no int8"
    return f"{artefact.candidate} {artefact.figures[0].value:.2f} MB ({note})"


def main() -> None:
    line = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    line.add_argument("--nets", default=",".join(NETS))
    line.add_argument("--sm", default=",".join(TARGETS))
    arguments = line.parse_args()
    print(f"{'net':12} {'SM':6} {'float16':>9} {'INT8+16':>9} {'ratio':>6} {'dense int8':>11} {'all':>8}  "
          f"{'2 builds':10} shipped")  # fmt: skip
    for name in arguments.nets.split(","):
        start = time.process_time()
        graph, arrays = captured(name)
        calibration = Calibration(graph, ArrayDataset(arrays))
        placement = dense(graph)
        half = to_float16(graph.model)
        full = to_float16(quantize(graph, calibration.table, placement.scheme, exclude=placement.exclude))
        for sm in arguments.sm.split(","):
            verdict, half_mb, _, _, _ = built(half, sm)
            again, full_mb, share, int8, nodes = built(full, sm)
            if not half_mb or not full_mb:
                print(f"{name:12} {sm:6} {verdict if not half_mb else again}")
                continue
            with tempfile.TemporaryDirectory() as folder:
                first = shipped(graph, calibration, TARGETS[sm], Path(folder))
            percent = "-" if share is None else f"{share:.1%}"
            both = verdict if verdict == again else f"{verdict}/{again}"
            print(f"{name:12} {sm:6} {half_mb:9.2f} {full_mb:9.2f} {full_mb / half_mb:6.2f} {percent:>11} "
                  f"{f'{int8}/{nodes}':>8}  {both:10} {first}", flush=True)  # fmt: skip
        print(f"{name:12} {time.process_time() - start:.1f} CPU-s in this process", file=sys.stderr)


if __name__ == "__main__":
    main()

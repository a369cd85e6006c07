"""Published latencies and energies, read from the qai-hub-models wheel and the CSV tables of a folder."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One published measurement: ``energy_mj`` is 0 where it was not published."""

    device: str
    network: str
    latency_ms: float
    energy_mj: float = 0.0


#: AI Hub devices with a column of their own; clones of these are left out (S25 = Q-8750, S22 = XR2 Gen 2,
#: X Elite = IQ-X7181, SA8255 = SA8650 = SA8775, 7 Gen 4 = Q-7790).
HUB_DEVICES = {
    "Samsung Galaxy S22 5G": "snapdragon8gen1",
    "QCS8550 (Proxy)": "snapdragon8gen2",
    "Samsung Galaxy S24": "snapdragon8gen3",
    "Samsung Galaxy S25": "snapdragon8elite",
    "Samsung Galaxy S26": "snapdragon8elite-gen5",
    "Snapdragon X Elite CRD": "snapdragonxelite",
    "Snapdragon X2 Elite CRD": "snapdragonx2elite",
    "SA8295P ADP": "sa8295p",
    "Dragonwing IQ-9075 EVK": "iq9075",
    "Arduino VENTUNO Q": "ventuno",
    "Dragonwing RB3 Gen 2 Vision Kit": "qcs6490",
    "Snapdragon 7 Gen 4 QRD": "snapdragon7gen4",
}
#: Image encoders that two MobileCLIP generations share.
_SAME_ENCODER = {
    "MobileCLIP-S0": "MobileCLIP2-S0",
    "MobileCLIP-S2": "MobileCLIP2-S2",
    "MobileCLIP-S3": "MobileCLIP2-S3",
    "MobileCLIP-S4": "MobileCLIP2-S4",
    "MobileCLIP2-L/14": "MobileCLIP-L/14",
}
#: Pinned, because the same device drifts between releases.
RUNTIME, RELEASE = "qnn_dlc", "2.50."


def hub_rows(wheel: Path, precision: str, networks) -> list[Row]:
    """AI Hub latencies of one precision ("float", "w8a8", "w8a16") where every layer ran on the NPU."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows = []
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for network in networks:
            model, _, part = network.partition(":")
            path = f"qai_hub_models/models/{model}/perf.yaml"
            if path not in names:
                continue
            table = yaml.load(archive.read(path), loader)
            for name, component in table.get("precisions", {}).get(precision, {}).get("components", {}).items():
                if part and name != part:
                    continue
                for device, runtimes in (component.get("performance_metrics") or {}).items():
                    found = runtimes.get(RUNTIME)
                    if device in HUB_DEVICES and found and _on_npu(found):
                        rows.append(Row(HUB_DEVICES[device], network, found["inference_time_milliseconds"]))
    return rows


def _on_npu(found) -> bool:
    layers = found.get("layer_counts") or {}
    return (
        found.get("inference_time_milliseconds") is not None
        and found.get("primary_compute_unit") == "NPU"
        and layers.get("npu", 0) == layers.get("total", -1)
        and str((found.get("tool_versions") or {}).get("qairt", "")).startswith(RELEASE)
    )


#: Boards of MLPerf Tiny: what a row's names contain, board, core, MHz. The table's own clocks are not always right.
_BOARDS = (
    ("L4R5ZI-P", "STM32L4R5", "M4", 120), ("L4R5", "STM32L4R5", "M4", 120), ("H7A3", "STM32H7A3", "M7", 280),
    ("U575", "STM32U575", "M33", 160), ("U585", "STM32U585", "M33", 160), ("F746", "STM32F746", "M7", 216),
    ("CY8CPROTO", "PSoC 62", "M4", 150), ("NRF5340", "nRF5340", "M33", 128), ("G0B1", "STM32G0B1", "M0+", 64),
    ("RA6M4", "RA6M4", "M33", 200), ("XG24", "xG24", "M33", 78),
)  # fmt: skip


def tiny_rows(folder: Path) -> list[Row]:
    """MLPerf Tiny on Cortex-M; a device is "vendor|version|board|core|MHz": a board under one release of a stack.

    Submitters of microTVM share its stack; a board under a stack that lacks one of the four networks is left out.
    """
    devices: dict[str, list[Row]] = {}
    for line in _read(folder / "mcu_mlperf_tiny.csv"):
        name = " ".join((line["implementation"] or line["system_id"], line["board"])).upper()
        found = next((board[1:] for board in _BOARDS if board[0] in name), None)
        if not found or not line["latency_ms"] or "FLOAT" in name or "MAX_PERF" in name:
            continue
        device = "|".join((*_stack(line), *map(str, found)))
        energy = float(line["energy_uj_per_inf"] or 0) / 1e3
        row = Row(device, f"tiny-{line['benchmark']}", float(line["latency_ms"]), energy)
        devices.setdefault(device, []).append(row)
    return [row for rows in devices.values() if len({row.network for row in rows}) == 4 for row in rows]


def _stack(line: dict[str, str]) -> tuple[str, str]:
    """Vendor of the software, and its release."""
    name = f"{line['system_id']} {line['implementation']}".upper()
    if "MICROTVM" in name:
        return "microTVM", "native" if "NATIVE" in name else "CMSIS-NN"
    if line["submitter"] == "Krai":
        return "STMicroelectronics", f"X-CUBE-AI {line['system_id'][-3:]}, Krai"
    if line["submitter"] == "Skymizer":
        return "Skymizer", line["system_id"].rsplit("-", 1)[-1]
    return line["submitter"], line["round"]


#: Rows that say how large a text encoder is, not which it is.
_TEXT_ENCODERS = {"63.4": "CLIP text 63M", "123.6": "CLIP text 124M"}


def iphone_rows(folder: Path, networks) -> list[Row]:
    """Core ML on the Neural Engine, float16; the same network in two documents is averaged by the fit."""
    rows = []
    for line in _read(folder / "coreml_iphone.csv"):
        if line["precision"] != "fp16" or not line["latency_ms"]:
            continue
        name, config = line["model"], line["config"]
        if config == "text encoder":
            name = _TEXT_ENCODERS.get(line["params_m"], "")
        elif config == "image encoder":
            name = (
                "MobileCLIP-B image"
                if "CLIP-B" in name or "CLIP2-B" in name
                else f"{_SAME_ENCODER.get(name, name)} image"
            )
        name = {"MobileNetv2-1.0": "mobilenet_v2", "MobileNetv3-small": "mobilenet_v3_small"}.get(name, name)
        if name in networks:
            rows.append(Row(f"iphone-{line['chip'].split()[0]}", name, float(line["latency_ms"])))
    return rows


def jetson_rows(folder: Path) -> list[Row]:
    """MLPerf Inference SingleStream on Jetson through TensorRT; wall energy where a power run was published."""
    systems = {
        "AGX_Xavier_TRT": "agx-xavier",
        "Xavier_NX_TRT": "xavier-nx",
        "Orin_NX_TRT": "orin-nx",
        "Orin_TRT": "agx-orin",
    }
    names = {"bert-99": "bert-large", "3d-unet-99": "3d-unet-brats"}
    known = {"resnet50", "ssd-mobilenet", "ssd-resnet34", *names.values()}
    rows = []
    for line in _read(folder / "jetson_rpi_mlperf.csv"):
        base = line["system_id"].removesuffix("_MaxQ")
        name = names.get(line["model"], line["model"])
        # From v2.0 on 3d-unet is another network on scans of every size.
        another = name == "3d-unet-brats" and line["round"] not in ("v0.7", "v1.0", "v1.1")
        if base in systems and line["scenario"] == "SingleStream" and name in known and not another:
            maxq = "-maxq" if line["system_id"].endswith("_MaxQ") else ""
            energy = float(line["energy_per_query_mj"] or 0)
            rows.append(Row(systems[base] + maxq, name, float(line["latency_mean_ms"]), energy))
    return rows


#: ncnn's names for networks that other tables have too.
_NCNN_NAMES = {"shufflenet_v2": "shufflenet_v2_x1_0", "mobilenet_v3": "mobilenet_v3_large"}


def cpu_rows(folder: Path, *, integer: bool, networks) -> list[Row]:
    """Ncnn on CPUs; a device is (machine, threads)."""
    return [
        Row(f"{line['device_section'][:60]}/{line['num_threads']}", name, latency)
        for line, name, latency in _ncnn(folder, networks)
        if line["backend"] == "CPU" and line["model"].endswith("_int8") == integer
    ]


def gpu_rows(folder: Path, networks) -> list[Row]:
    """Ncnn through Vulkan on phone and Jetson GPUs, float16."""
    return [
        Row(line["gpu_name"] + ("" if "Orin Nano" not in line["device_section"] else " Nano"), name, latency)
        for line, name, latency in _ncnn(folder, networks)
        if line["backend"] == "GPU_vulkan" and not line["model"].endswith("_int8")
    ]


def _ncnn(folder: Path, networks):
    for line in _read(folder / "cpu_gpu_ncnn.csv"):
        plain = line["model"].removesuffix("_int8")
        name = _NCNN_NAMES.get(plain, plain)
        latency = line["latency_avg_ms"] or line["latency_min_ms"]
        if latency and name in networks:
            yield line, name, float(latency)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))

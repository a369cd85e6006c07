"""Published latencies and energies, read from the qai-hub-models wheel and the CSV tables of a folder."""

from __future__ import annotations

import csv
import re
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


def tiny_rows(folder: Path) -> list[Row]:
    """MLPerf Tiny on Cortex-M; a device is one (vendor, board, round): its software stack at one version."""
    rows = {}
    for line in _read(folder / "mcu_mlperf_tiny.csv"):
        core = re.search(r"Cortex-M(\d+)", line["processor"].replace("®", ""))
        if not core or not line["latency_ms"] or "float" in line["system_id"] or "max_perf" in line["system_id"]:
            continue
        stack = line["submitter"] + " " + line["system_id"]
        device = f"{stack}/{line['round']}/M{core[1]}/{line['processor_freq'].split()[0]}/{line['implementation']}"
        energy = float(line["energy_uj_per_inf"] or 0) / 1e3
        rows[device, line["benchmark"]] = Row(device, f"tiny-{line['benchmark']}", float(line["latency_ms"]), energy)
    devices = {}
    for (device, _), row in rows.items():
        devices.setdefault(device, []).append(row)
    return [row for found in devices.values() if len(found) == 4 for row in found]


def iphone_rows(folder: Path, networks) -> list[Row]:
    """Core ML on the Neural Engine, float16; the same network in two documents is averaged by the fit."""
    rows = []
    for line in _read(folder / "coreml_iphone.csv"):
        if line["precision"] != "fp16" or not line["latency_ms"]:
            continue
        name, config = line["model"], line["config"]
        if config == "image encoder":
            name = _SAME_ENCODER.get(name, name) + " image"
        name = {"MobileNetv2-1.0": "mobilenet_v2", "MobileNetv3-small": "mobilenet_v3_small"}.get(name, name)
        if name in networks and config != "text encoder":
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
    names = {"resnet50": "resnet50", "bert-99": "bert-large"}
    rows = []
    for line in _read(folder / "jetson_rpi_mlperf.csv"):
        base = line["system_id"].removesuffix("_MaxQ")
        latency = line["latency_p50_ms"] or line["latency_mean_ms"]
        if base in systems and line["scenario"] == "SingleStream" and line["model"] in names and latency:
            maxq = "-maxq" if line["system_id"].endswith("_MaxQ") else ""
            energy = float(line["energy_per_query_mj"] or 0)
            rows.append(Row(systems[base] + maxq, names[line["model"]], float(latency), energy))
    return rows


def cpu_rows(folder: Path, *, integer: bool, networks) -> list[Row]:
    """Ncnn on CPUs; a device is (machine, threads)."""
    names = {
        "shufflenet_v2": "shufflenet_v2_x1_0",
        "mobilenet_v3": "mobilenet_v3_large",
        "googlenet": "",
    }
    rows = []
    for line in _read(folder / "cpu_gpu_ncnn.csv"):
        latency = line["latency_avg_ms"] or line["latency_min_ms"]
        if line["backend"] != "CPU" or not latency or line["model"].endswith("_int8") != integer:
            continue
        plain = line["model"].removesuffix("_int8")
        name = names.get(plain, plain)
        if name in networks:
            rows.append(Row(f"{line['device_section'][:60]}/{line['num_threads']}", name, float(latency)))
    return rows


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))

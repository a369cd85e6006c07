"""Fits the cost model to published measurements and writes the ``[cost]`` sections of the device profiles.

    python benchmarks/fit_cost_model.py MEASUREMENTS_FOLDER QAI_HUB_MODELS.whl [--cache ops.json] [--write PROFILES]

Without ``--write`` the sections are printed. The band comes from leaving one architecture family out at a time (one
network where there are few), never from the fit. benchmarks/cost_model.py reports the frozen test set, predicted by
coefficients that never saw it; what ships is fitted on all networks, those included.
Needs torchvision, timm, transformers (op lists only, nothing is downloaded), pyyaml and scipy.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path

import numpy as np
from cost_model_cache import load_facts
from cost_model_families import (
    CPU_FLOAT,
    CPU_INT8,
    GPU,
    IPHONE,
    JETSON,
    NPU_FLOAT,
    NPU_INT8,
    NPU_INT16,
    TINY,
    AroundFloat,
    architecture,
    gather,
    stacks_of,
)
from cost_model_fit import NAMES, Bench, Errors, Family, cross_validate, fit_family, peer_table, table
from cost_model_rows import iphone_rows

from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.targets.cost.peers import TABLE

SCRIPT = "benchmarks/fit_cost_model.py"
FITTED_AT = "2026-11-22"
_HUB = "AI Hub (qai-hub-models 0.65.0, QAIRT 2.50, qnn_dlc, every layer on the NPU)"
_TINY_M4 = r"^microTVM\|CMSIS-NN\|STM32L4R5"
_TINY_M33 = r"^microTVM\|CMSIS-NN\|nRF5340"
_CMSIS = "MLPerf Tiny, microTVM with CMSIS-NN"


class Fitted:
    """Coefficients of one family: by device, with the cross-validated errors."""

    def __init__(self, family: Family, rows, facts, around: AroundFloat | None = None) -> None:
        self.family = family
        self.table = table(rows)
        bench = Bench(family, facts, self.table.networks)
        groups = [architecture(name) for name in self.table.networks]
        # An unseen architecture is what a user brings, so its band is the one to state where there are enough.
        self.by_family = len(set(groups)) > 4
        held = groups if self.by_family else self.table.networks
        stacks = stacks_of(family, self.table.devices)
        self.errors: Errors = cross_validate(family, bench, self.table.logs, held, stacks=stacks, around=around)
        fit = fit_family(family, bench, self.table.logs, stacks=stacks, around=around(set()) if around else None)
        self.devices = dict(zip(self.table.devices, fit[1], strict=True))
        self.peers = peer_table(bench, self.table.logs, fit) if family.odd_rows else None

    def band(self) -> float:
        """The factor that 90 of 100 held-out cells lie within."""
        return self.errors.band90()

    def validated(self) -> str:
        """Say how well held-out networks were predicted."""
        median, ninetieth = self.errors.percent()
        shape = self.table.logs.shape
        return (
            f"leave-one-{'architecture-family' if self.by_family else 'model'}-out over {shape[1]} networks on "
            f"{shape[0]} devices: median {median:.0f} %, 90th percentile {ninetieth:.0f} % absolute error"
        )

    def match(self, pattern: str) -> np.ndarray:
        """Geometric mean of the devices whose names match."""
        found = [logs for name, logs in self.devices.items() if re.search(pattern, name)]
        if not found:
            raise SystemExit(f"no measured device matches {pattern!r}")
        return np.mean(found, 0)


def scaled(logs: np.ndarray, slower: float) -> np.ndarray:
    """The same device at another speed: times grow, rates shrink."""
    moved = logs.copy()
    moved[:3] += np.log(slower)
    moved[3:6] -= np.log(slower)
    return moved


def section(form: str, status: str, fitted_on: str, validated: str, latency: dict, energy: dict | None = None) -> str:
    lines = [
        "[cost]",
        f'form = "{form}"',
        f'status = "{status}"',
        f'fitted_on = "{fitted_on}"',
        f'fitted_by = "{SCRIPT}"',
        f'fitted_at = "{FITTED_AT}"',
        f'validated = "{validated}"',
    ]
    for precision, (logs, band) in latency.items():
        lines += ["", f"[cost.latency.{precision}]"]
        lines += [f"{name} = {value:.4g}" for name, value in zip(NAMES, np.exp(logs), strict=True)]
        lines.append(f"band90 = {band:.3g}")
    if energy:
        lines += ["", "[cost.energy]"]
        lines += [
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value:.4g}" for key, value in energy.items()
        ]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Replace the profile's ``[cost]`` tables, or put them before ``[sources]``."""
    old = path.read_text(encoding="utf-8")
    kept = re.sub(r"(?ms)^\[cost[\].].*?(?=^\[(?!cost)|\Z)", "", old)
    place = kept.find("[sources]")
    new = f"{kept[:place]}{text}\n{kept[place:]}" if place >= 0 else f"{kept.rstrip()}\n\n{text}"
    path.write_text(new, encoding="utf-8")


def write_peers(fits: dict[str, Fitted]) -> None:
    """The measured networks that estimates are corrected by, beside the code that reads them."""
    found: dict[str, dict] = json.loads(TABLE.read_text(encoding="utf-8"))
    for fit in fits.values():
        if fit.peers is not None:
            found.setdefault(fit.family.form, {})[fit.family.precision.name] = {
                "networks": fit.table.networks,
                "positions": fit.peers.positions.round(3).tolist(),
                "log_ratio": fit.peers.log_ratio.round(3).tolist(),
            }
    TABLE.write_text(json.dumps(found, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


def snapdragons(fits: dict[str, Fitted], folder: Path) -> dict[str, str]:
    sections = {}
    keys = {"float16": NPU_FLOAT.name, "int8": NPU_INT8.name, "int16": NPU_INT16.name}
    names = (
        "snapdragon8gen1",
        "snapdragon8gen2",
        "snapdragon8gen3",
        "snapdragon8elite",
        "snapdragonxelite",
        "sa8295p",
        "qcs6490",
    )
    for name in names:
        found = {key: fits[fit] for key, fit in keys.items() if name in fits[fit].devices}
        validated = "; ".join(f"{key}: {fit.validated()}" for key, fit in found.items())
        latency = {key: (fit.devices[name], fit.band()) for key, fit in found.items()}
        sections[name] = section("npu", "fitted", _HUB, validated, latency, phone_energy(folder, name))
    neighbours = {"int8": fits[NPU_INT8.name], "int16": fits[NPU_INT16.name]}
    between = {key: (fit.match("^(qcs6490|sa8295p)$"), max(1.7, fit.band())) for key, fit in neighbours.items()}
    errors = "; ".join(f"{key}: {fit.validated()}" for key, fit in neighbours.items())
    sections["snapdragon888"] = section(
        "npu", "interpolated", f"geometric mean of QCS6490 and SA8295P, both Hexagon V68; {_HUB}",
        f"interpolated and not validated on this chip; its neighbours: {errors}",
        between, phone_energy(folder, "snapdragon888"),
    )  # fmt: skip
    return sections


def phone_energy(folder: Path, device: str) -> dict | None:
    """Full-load power of the phone's chip; nobody publishes measurements, so the band is wide."""
    with (folder / "devices.csv").open(newline="", encoding="utf-8") as stream:
        watts = next(
            (float(line["power_typical_w"] or 0) for line in csv.DictReader(stream) if line["device_id"] == device), 0
        )
    if not watts:
        return None
    source = f"no measurement: {watts:g} W, the typical power of the chip under load, recalled from vendor figures"
    return {"active_mw": 1e3 * watts, "band90": 3.0, "fitted_on": source}


def microcontrollers(fit: Fitted, rows) -> dict[str, str]:
    """Profiles run TensorFlow Lite Micro with CMSIS-NN kernels: the nearest published stack has the same kernels."""
    m4, m33, band = fit.match(_TINY_M4), fit.match(_TINY_M33), fit.band()
    m7 = m4 + fit.match(r"^plumerai.*F746") - fit.match(r"^plumerai.*L4R5")
    m0 = m4 + fit.match(r"^bosch.*G0B1") - fit.match(r"^bosch.*L4R5")
    energy = {board: board_power(rows, pattern) for board, pattern in (("l4r5", r"STM32L4R5"), ("u575", r"STM32U575"))}
    wider = band * 1.3
    by_clock = "{} (the same core) scaled by clock"
    ratio = "STM32L4R5 times the ratio of {} to it under another vendor's kernels"
    plan = {
        "stm32l4r5": (m4, "fitted", "the same board", band, energy["l4r5"]),
        "nrf5340": (m33, "fitted", "the same board", band, None),
        "nrf52840": (scaled(m4, 120 / 64), "interpolated", by_clock.format("STM32L4R5"), wider, None),
        "stm32f446": (scaled(m4, 120 / 180), "interpolated", by_clock.format("STM32L4R5"), wider, None),
        "stm32u575": (scaled(m33, 128 / 160), "interpolated", by_clock.format("nRF5340"), wider, energy["u575"]),
        "rp2350": (scaled(m33, 128 / 150), "interpolated", by_clock.format("nRF5340"), wider, None),
        "stm32f746": (m7, "interpolated", ratio.format("STM32F746"), wider, None),
        "rp2040": (scaled(m0, 64 / 133), "interpolated", f"{ratio.format('STM32G0B1')}, scaled by clock", wider, None),
        "stm32h743": (scaled(m7, 216 / 480), "interpolated", by_clock.format("STM32F746"), wider, None),
    }  # fmt: skip
    return {
        name: section("mcu", status, f"{_CMSIS}: {how}", fit.validated(), {"int8": (logs, wide)}, power)
        for name, (logs, status, how, wide, power) in plan.items()
    }


def board_power(rows, pattern: str) -> dict:
    """Active power of a board from its published energies.

    The band comes from leaving one stack out, since supply voltage and peripherals differ between submitters; from
    leaving one network out where there is one stack.
    """
    found = {}
    for row in rows:
        if row.energy_mj and re.search(pattern, row.device):
            found.setdefault((row.device, row.network), row.energy_mj / row.latency_ms * 1e3)
    powers = np.log(list(found.values()))
    stacks, networks = (np.array([key[part] for key in found]) for part in (0, 1))
    held = stacks if len(set(stacks)) > 1 else networks
    misses = [abs(powers[i] - powers[held != held[i]].mean()) for i in range(len(powers))]
    return {
        "active_mw": float(np.exp(powers.mean())),
        "band90": float(np.exp(np.quantile(misses, 0.9))),
        "fitted_on": f"MLPerf Tiny energy runs of this board ({len(powers)} measurements), times the latency",
    }


def iphones(fit: Fitted, folder: Path, facts) -> dict[str, str]:
    """A14 is fitted; A16 and A17 have two or three networks each, which only set the speed of A14's shape."""
    a14, band = fit.match("^iphone-A14$"), fit.band()
    text = "latencies published by Apple and Snap (Core ML, float16, all compute units)"
    chips = {"A14": a14}
    for chip in ("A16", "A17"):
        rows = table(row for row in iphone_rows(folder, facts) if row.device == f"iphone-{chip}")
        predicted = np.log(Bench(fit.family, facts, rows.networks).predict(a14))
        chips[chip] = scaled(a14, float(np.exp(np.mean(rows.logs[0] - predicted))))
    few = "A14's shape at the mean speed of the two or three networks published for this chip; " + text
    plan = {
        "iphone12": (a14, "fitted", text, band, "a14"),
        "iphone13": ((a14 + chips["A16"]) / 2, "interpolated", f"between A14 and A16; {text}", band * 1.4, "a15"),
        "iphone14pro": (chips["A16"], "interpolated", few, band * 1.4, "a16"),
        "iphone15pro": (chips["A17"], "interpolated", few, band * 1.4, "a17pro"),
    }
    return {
        name: section("ane", status, how, fit.validated(), {"float16": (logs, wide)}, phone_energy(folder, device))
        for name, (logs, status, how, wide, device) in plan.items()
    }


def cpus(fits: dict[str, Fitted]) -> dict[str, str]:
    """Ncnn's kernels are not ONNX Runtime's: interpolated, with a wider band."""
    machines = {
        "raspberrypi4": (r"Raspberry Pi 4.*/4$", "Raspberry Pi 4, 4 threads"),
        "raspberrypi5": (r"Raspberry Pi 5.*/4$", "Raspberry Pi 5, 4 threads"),
        "x86-avx2": (r"EPYC 7742.*/1$", "EPYC 7742 (AVX2), 1 thread"),
        "snapdragon888-cpu": (r"Snapdragon 888.*/8$", "the Snapdragon 888's eight cores"),
        "x86-avx512vnni": (r"D64s v6.*/1$", "Azure D64s v6 (Xeon with AVX512-VNNI), 1 thread"),
    }
    sections = {}
    for name, (pattern, machine) in machines.items():
        latency = {
            key: (fits[fit.name].match(pattern), fits[fit.name].band() * 1.3)
            for key, fit in (("float32", CPU_FLOAT), ("int8", CPU_INT8))
        }
        validated = "; ".join(
            f"{key}: {fits[fit.name].validated()}" for key, fit in (("float32", CPU_FLOAT), ("int8", CPU_INT8))
        )
        sections[name] = section(
            "cpu", "interpolated", f"ncnn on {machine}; ONNX Runtime has other kernels", validated, latency
        )
    return sections


def jetsons(fit: Fitted, rows) -> dict[str, str]:
    """Two to five networks a board: the band is what leaving one of them out costs, widened."""
    band = fit.band() * 1.3
    text = "MLPerf Inference SingleStream, TensorRT int8: two to five networks a board"
    boards = {"jetson-agx-orin": "agx-orin", "jetson-orin-nx": "orin-nx", "jetson-xavier-nx": "xavier-nx"}
    sections = {}
    for name, device in boards.items():
        power = None
        if any(row.energy_mj and row.device == f"{device}-maxq" for row in rows):
            power = board_power(rows, f"^{device}-maxq$")
            power |= {"fitted_on": f"whole-board wall power of MLPerf runs at the MaxQ setting; {text}"}
        sections[name] = section(
            "gpu", "fitted", text, fit.validated(), {"int8": (fit.match(f"^{device}$"), band)}, power
        )
    larger, smaller = (load_profile(name).hardware for name in ("jetson-orin-nx", "jetson-orin-nano"))
    logs = fit.match("^orin-nx$")
    logs[3] += np.log(smaller.peak_int8_gops / larger.peak_int8_gops)
    logs[4:6] += np.log(smaller.bandwidth_gb_s / larger.bandwidth_gb_s)
    how = f"Orin NX scaled by peak rate and memory bandwidth; {text}"
    sections["jetson-orin-nano"] = section("gpu", "interpolated", how, fit.validated(), {"int8": (logs, band * 1.2)})
    return sections


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("cost_model_ops.json"))
    parser.add_argument("--only", default="", help="fit the families whose name this regular expression finds")
    parser.add_argument("--write", type=Path, metavar="PROFILES", help="folder of device profiles to update")
    arguments = parser.parse_args()
    facts = load_facts(arguments.cache)
    fits, rows_of = {}, {}
    families = [
        item for item in gather(arguments.folder, arguments.wheel, facts) if re.search(arguments.only, item[0].name)
    ]
    for family, rows in families:
        if family is GPU:
            continue  # no backend of ours ships to a GPU through Vulkan: only validated
        if not rows:
            print(f"{family.name}: its measurements are not in {arguments.folder} or {arguments.wheel}: skipped")
            continue
        around = AroundFloat(rows_of[CPU_FLOAT.name], facts) if family is CPU_INT8 else None
        fits[family.name], rows_of[family.name] = Fitted(family, rows, facts, around), rows
        print(f"{family.name}: {fits[family.name].validated()}, band ×/÷{fits[family.name].band():.2f}", flush=True)
    sections = {}
    if {NPU_FLOAT.name, NPU_INT8.name, NPU_INT16.name} <= fits.keys():
        sections |= snapdragons(fits, arguments.folder)
    if JETSON.name in fits:
        sections |= jetsons(fits[JETSON.name], rows_of[JETSON.name])
    if TINY.name in fits:
        sections |= microcontrollers(fits[TINY.name], rows_of[TINY.name])
    if IPHONE.name in fits:
        sections |= iphones(fits[IPHONE.name], arguments.folder, facts)
    if {CPU_FLOAT.name, CPU_INT8.name} <= fits.keys():
        sections |= cpus(fits)
    if arguments.write:
        write_peers(fits)
    for name, text in sections.items():
        path = arguments.write / f"{name}.toml" if arguments.write else None
        if path is None:
            print(f"\n# {name}\n{text}")
        elif path.is_file():
            write(path, text)


if __name__ == "__main__":
    main()

"""The firmware sources: they compile for every core with warnings as errors, and no name can break them."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from programs import needs
from tflite_cases import all_cases, conv, node
from tflite_firmware import STAND_IN, copy_of_stand_in, needs_emulator
from tflite_graphs import quantized

from edgedeploy.device_profiles.loader import builtin_names, load_profile
from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.exporters.tflite_micro.contract import contract_of
from edgedeploy.exporters.tflite_micro.firmware.boards import BOARDS
from edgedeploy.exporters.tflite_micro.firmware.bundle import (
    FirmwareModel,
    complete_firmware,
    vector_crc,
    write_firmware,
)
from edgedeploy.exporters.tflite_micro.firmware.check import COMPILER, check_sources
from edgedeploy.exporters.tflite_micro.firmware.cores import CORES
from edgedeploy.exporters.tflite_micro.firmware.identifiers import c_string, identifier, resolver_method
from edgedeploy.exporters.tflite_micro.firmware.tree import RuntimeTree
from edgedeploy.exporters.tflite_micro.flatbuffer import operators_of
from edgedeploy.exporters.tflite_micro.writer import write_tflite
from edgedeploy.tensors import Contract, PortSpec

needs_compiler = needs(COMPILER)

HOSTILE = [
    'quote" and \\ backslash',
    "*/ int evil(void); /*",
    "line\nbreak\r\n#error no",
    "??/ trigraph ??>",
    "switch",
    "9lives",
    "Ünïcödé 模型",
    "%s%n",
    "",
    "{{ 7 * 7 }}",
    "a" * 300,
]


def graph():
    made = conv((1, 3, 8, 8), 5, (3, 3))
    made.nodes[0].output[0] = "c"
    made.nodes.append(node("Relu", ["c"], ["y"]))
    return made


SAMPLES = np.random.default_rng(0).uniform(-1, 1, (3, 1, 3, 8, 8)).astype(np.float32)


def firmware(folder, name="net", profile="stm32l4r5", labels=(), preprocessing=None):
    written = write_tflite(quantized(graph(), SAMPLES))
    model = FirmwareModel.of(
        name, written, contract_of(written), load_profile(profile), labels=labels, preprocessing=preprocessing
    )
    write_firmware(folder, model)
    return written, model


def codes(shape, dtype=np.int8):
    return np.random.default_rng(1).integers(-128, 128, shape).astype(dtype)


@needs_compiler
@pytest.mark.parametrize("cpu", sorted(CORES))
def test_the_sources_compile_for_every_core(tmp_path, cpu):
    written, _ = firmware(tmp_path / "fw")
    complete_firmware(tmp_path / "fw", "net", (5000, 0.15), [codes((4, 1, 8, 8, 3))], [codes((4, 1, 6, 6, 5))])
    found = check_sources(tmp_path / "fw", cpu)
    assert found.text >= len(written.content)
    assert found.data == found.bss == 0


@needs_compiler
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_cannot_break_the_sources(tmp_path, name):
    firmware(tmp_path / "fw", name, labels=[name, "cat"], preprocessing={"x": name})
    complete_firmware(tmp_path / "fw", name, (5000, 0.15), [codes((3, 1, 8, 8, 3))], [codes((3, 1, 6, 6, 5))])
    check_sources(tmp_path / "fw", "cortex-m4")
    text = (tmp_path / "fw" / "model.h").read_text(encoding="ascii")
    assert "evil(void)" not in re.sub(r'"(\\.|[^"\\])*"', "", text)


@needs_compiler
def test_the_array_is_the_model_and_lies_on_16_bytes(tmp_path):
    written, _ = firmware(tmp_path / "fw")
    objects = tmp_path / "model.o"
    subprocess.run(
        [COMPILER, "-mcpu=cortex-m4", "-mthumb", "-c", str(tmp_path / "fw/model_data.cc"), "-o", objects], check=True
    )
    sections = subprocess.run(
        ["arm-none-eabi-objdump", "-h", objects], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(r"\.rodata\s.*2\*\*4", sections)
    binary = tmp_path / "model.bin"
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", "-j", ".rodata", objects, binary], check=True)
    assert written.content in binary.read_bytes()


@needs_compiler
@pytest.mark.parametrize("cpu", sorted(CORES))
def test_main_compiles_against_the_runtimes_interface(tmp_path, cpu):
    """No tflite-micro tree is here: the stand-in has the names and signatures of its real headers."""
    firmware(tmp_path / "fw")
    complete_firmware(tmp_path / "fw", "net", (5000, 0.15), [codes((3, 1, 8, 8, 3))], [codes((3, 1, 6, 6, 5))])
    assert check_sources(tmp_path / "fw", cpu, RuntimeTree.at(STAND_IN)).with_runtime


@needs_compiler
def test_main_compiles_for_every_type_and_for_many_ports(tmp_path):
    _, model = firmware(tmp_path / "plain")
    dtypes = ("int8", "int16", "int32", "uint8", "float32", "bool")
    ports = tuple(PortSpec(dtype, dtype, (1, 4), dtype, "", (), 0.5, 3) for dtype in dtypes)
    write_firmware(tmp_path / "fw", dataclasses.replace(model, contract=Contract(ports, ports)))
    arrays = [np.ones((3, 1, 4), dtype) for dtype in dtypes]
    complete_firmware(tmp_path / "fw", "net", (5000, 0.15), arrays, arrays)
    assert check_sources(tmp_path / "fw", "cortex-m4", RuntimeTree.at(STAND_IN)).with_runtime


@needs_compiler
def test_main_compiles_where_the_runtimes_names_are_in_tflite_micro(tmp_path):
    """As in tflite-micro's trees since 2026."""
    tree = copy_of_stand_in(tmp_path / "tree")
    for header in tree.rglob("*.h"):
        header.write_text(header.read_text().replace("namespace tflite {", "namespace tflite::micro {"))
    firmware(tmp_path / "fw")
    complete_firmware(tmp_path / "fw", "net", (5000, 0.15), [codes((3, 1, 8, 8, 3))], [codes((3, 1, 6, 6, 5))])
    assert check_sources(tmp_path / "fw", "cortex-m4", RuntimeTree.at(tree)).with_runtime


@needs_compiler
@pytest.mark.parametrize("name", ["printf", "log", "signal", "micro", "flatbuffers", "stdin", "uint8_t"])
def test_a_model_named_like_the_c_library_compiles(tmp_path, name):
    firmware(tmp_path / "fw", name)
    complete_firmware(tmp_path / "fw", name, (5000, 0.15), [codes((3, 1, 8, 8, 3))], [codes((3, 1, 6, 6, 5))])
    assert check_sources(tmp_path / "fw", "cortex-m4", RuntimeTree.at(STAND_IN)).with_runtime


@needs_compiler
def test_every_operator_of_the_writer_has_its_add_method(tmp_path):
    operators = sorted({builtin for case in all_cases() for builtin in case.builtins or ()} | {"ethos-u"})
    assert len(operators) > 30
    _, model = firmware(tmp_path / "plain")
    write_firmware(tmp_path / "fw", dataclasses.replace(model, operators=tuple(operators)))
    assert check_sources(tmp_path / "fw", "cortex-m4", RuntimeTree.at(STAND_IN)).with_runtime


@needs_compiler
def test_a_broken_source_is_quoted(tmp_path):
    firmware(tmp_path / "fw")
    (tmp_path / "fw/model.h").write_text("int broken(\n")
    with pytest.raises(ToolFailedError, match="refused") as raised:
        check_sources(tmp_path / "fw", "cortex-m4")
    assert "broken" in raised.value.found


def test_a_core_without_flags_and_a_missing_compiler_are_said(tmp_path, monkeypatch):
    firmware(tmp_path / "fw")
    if shutil.which(COMPILER):
        with pytest.raises(InputError, match="xtensa"):
            check_sources(tmp_path / "fw", "xtensa-lx7")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=re.escape(COMPILER)):
        check_sources(tmp_path / "fw", "cortex-m4")


def test_the_resolver_holds_exactly_the_operators_of_the_file(tmp_path):
    written, _ = firmware(tmp_path / "fw")
    text = (tmp_path / "fw/op_resolver.h").read_text()
    registered = re.findall(r"resolver\.(\w+)\(\)", text)
    assert registered == [resolver_method(name) for name in operators_of(written.content)]
    assert f"kOperatorCount = {len(registered)};" in text


def test_the_contract_is_in_the_header(tmp_path):
    _, model = firmware(tmp_path / "fw", labels=["cat", "dog"], preprocessing={"x": "mean 0.5"})
    text = (tmp_path / "fw/model.h").read_text()
    port = model.contract.inputs[0]
    assert "INPUT0_SHAPE { 1, 8, 8, 3 }" in text
    assert 'INPUT0_LAYOUT "NHWC"' in text
    assert f"INPUT0_ZERO_POINT ({port.zero_point})" in text
    scale = float(re.search(r"INPUT0_SCALE (\S+)f", text)[1])
    assert np.float32(scale) == np.float32(port.scale)
    assert '"cat", "dog"' in text
    assert 'INPUT0_PREPROCESSING "mean 0.5"' in text


def test_the_arena_says_what_was_measured_and_changes_once(tmp_path):
    folder = tmp_path / "fw"
    firmware(folder)
    header = folder / "model_arena.h"
    assert "NOT MEASURED" in header.read_text()
    inputs, outputs = [codes((5, 1, 8, 8, 3))], [codes((5, 1, 6, 6, 5))]
    assert complete_firmware(folder, "net", (5008, 0.15), inputs, outputs)
    text = header.read_text()
    assert "ARENA_MEASURED 5008" in text
    size = int(re.search(r"ARENA_SIZE (\d+)", text)[1])
    assert size >= 5008 * 1.15 - 1 and size % 16 == 0
    golden = (folder / "golden_vectors.h").read_text()
    assert "GOLDEN_COUNT 3" in golden
    assert f"{vector_crc([inputs[0][0]])}u" in golden
    assert not complete_firmware(folder, "net", (9999, 0.15), inputs, outputs)
    assert header.read_text() == text


def test_writing_the_sources_twice_gives_the_same_files(tmp_path):
    firmware(tmp_path / "a")
    firmware(tmp_path / "b")
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second


@pytest.mark.parametrize("name", ["net", *HOSTILE])
def test_the_folder_is_a_zephyr_module(tmp_path, name):
    firmware(tmp_path / "fw", name)
    module = yaml.safe_load((tmp_path / "fw/zephyr/module.yml").read_text())
    assert module == {
        "name": f"edgedeploy_{identifier(name)}",
        "build": {"cmake": "zephyr", "kconfig": "zephyr/Kconfig"},
    }
    kconfig = (tmp_path / "fw/zephyr/Kconfig").read_text().splitlines()[1:]
    symbol = f"EDGEDEPLOY_{identifier(name).upper()}"
    assert kconfig[0] == f"config {symbol}"
    assert re.fullmatch(r'\tbool "[ ,.\w]+"', kconfig[1]) and kconfig[2:] == ["\tdepends on TENSORFLOW_LITE_MICRO"]
    assert f"if(CONFIG_{symbol})" in (tmp_path / "fw/zephyr/CMakeLists.txt").read_text()


@needs_emulator
def test_zephyrs_build_finds_the_modules_sources(tmp_path):
    """Zephyr's own CMake functions are not here: three of that name and meaning stand in for them."""
    firmware(tmp_path / "fw")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.19)\nproject(app CXX)\nset(CONFIG_EDGEDEPLOY_NET y)\n"
        "add_library(zephyr_interface INTERFACE)\n"
        "macro(zephyr_library)\n  add_library(module STATIC)\nendmacro()\n"
        "macro(zephyr_library_sources)\n  target_sources(module PRIVATE ${ARGV})\nendmacro()\n"
        "macro(zephyr_include_directories)\n"
        "  target_include_directories(zephyr_interface INTERFACE ${ARGV})\nendmacro()\n"
        "add_subdirectory(fw/zephyr)\nadd_executable(app main.cc)\n"
        "target_link_libraries(app PRIVATE module zephyr_interface)\n"
    )
    (tmp_path / "main.cc").write_text('#include "model_data.h"\nint main() { return net_model_data[0]; }\n')
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / 'fw/toolchain.cmake'}"
    link = "-DCMAKE_EXE_LINKER_FLAGS=--specs=nosys.specs"
    subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "b", toolchain, link], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path / "b"], check=True, capture_output=True)


@given(st.text())
def test_any_text_becomes_an_identifier_and_a_literal(text):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", identifier(text))
    literal = c_string(text)
    assert re.fullmatch(r'"([^"\\\n?]|\\[0-7]{3})*"', literal)
    decoded = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), literal[1:-1].encode())
    assert decoded.decode() == text


def test_a_profile_with_an_unknown_emulated_board_is_refused(tmp_path):
    written, model = firmware(tmp_path / "fw")
    profile = load_profile("stm32l4r5")
    other = profile.model_copy(update={"hardware": profile.hardware.model_copy(update={"emulated_board": "mps9"})})
    with pytest.raises(InputError, match="unknown emulated board") as raised:
        FirmwareModel.of("net", written, model.contract, other)
    assert "mps9" in raised.value.found and "mps2-an386" in raised.value.remedy


def test_every_microcontroller_profile_names_a_core_and_its_sources():
    profiles = [load_profile(name) for name in builtin_names()]
    mine = [profile for profile in profiles if profile.device.backend == "tflite_micro"]
    assert len(mine) == 13
    for profile in mine:
        hardware = profile.hardware
        assert hardware.cpu in CORES or hardware.cpu == "xtensa-lx7"
        assert hardware.emulated_board in BOARDS or hardware.cpu == "xtensa-lx7"
        assert profile.budget["ram_kb"].max <= hardware.ram_kb and profile.budget["flash_kb"].max <= hardware.flash_kb
        for key in ("ram_kb", "flash_kb", "clock_mhz", "peak_int8_gops", "kernel_margin"):
            assert getattr(hardware, key) is not None
            assert profile.sources[f"hardware.{key}"]

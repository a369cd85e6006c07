"""Tricks in .pt2 archives; each takes the parts of a genuine one and changes one thing."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from payloads import Touch, old_save, protocol_0, saved

Parts = dict[str, bytes]
GRAPH = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Net(torch.nn.Sequential):
    """A linear layer, and an input that nothing uses."""

    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
        return self[0](x)


def genuine(dynamic: bool = False) -> Parts:
    """The members of what torch.export.save writes of a linear layer, without the root folder."""
    shapes = ({0: torch.export.Dim("batch")}, None) if dynamic else None
    net = Net(torch.nn.Linear(4, 3)).eval()
    program = torch.export.export(net, (torch.ones(2, 4), torch.ones(1)), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, parts: Parts, root: str = "archive") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name if name.startswith("//") else f"{root}/{name}", content)
    return path


def edit(parts: Parts, member: str, change: Callable[[Any], object]) -> None:
    document = json.loads(parts[member])
    change(document)
    parts[member] = json.dumps(document).encode()


def entry(parts: Parts, table: str, name: str, **fields: object) -> None:
    edit(parts, table, lambda d: d["config"].update({name: {"is_param": True, "tensor_meta": None, **fields}}))


def node(parts: Parts, target: str, *inputs: tuple[str, dict[str, object]]) -> None:
    def change(document: Any) -> None:
        last = document["graph_module"]["graph"]["nodes"][-1]
        last["target"] = target
        if inputs:
            last["inputs"] = [{"name": name, "arg": value, "kind": 1} for name, value in inputs]

    edit(parts, GRAPH, change)


def every(parts: Parts, key: str, value: object) -> None:
    def walk(here: Any) -> None:
        if isinstance(here, dict):
            for name, item in here.items():
                if name == key:
                    here[name] = value
                else:
                    walk(item)
        elif isinstance(here, list):
            for item in here:
                walk(item)

    edit(parts, GRAPH, walk)


def spec(parts: Parts, text: str) -> None:
    def change(document: Any) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text

    edit(parts, GRAPH, change)


def inner(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"archive/{name}", content)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
    return file.getvalue()


def pickled_weight(content: bytes) -> Callable[[Parts, Path], None]:
    def change(parts: Parts, canary: Path) -> None:
        parts["data/weights/weight_0"] = content
        entry(parts, WEIGHTS, "0.weight", path_name="weight_0", use_pickle=True)

    return change


def opaque(parts: Parts, canary: Path) -> None:
    content = pickle.dumps(Touch(canary))
    content += bytes(-len(content) % 4)
    meta = next(iter(json.loads(parts[WEIGHTS])["config"].values()))["tensor_meta"]
    meta |= {"sizes": [{"as_int": len(content) // 4}], "strides": [{"as_int": 1}]}
    parts["data/constants/opaque_obj_0"] = content
    entry(parts, CONSTANTS, "c", path_name="opaque_obj_0", is_param=False, use_pickle=False, tensor_meta=meta)


def decoy(parts: Parts, canary: Path) -> None:
    pickled_weight(pickle.dumps(Touch(canary)))(parts, canary)
    entry(parts, WEIGHTS, "0.weight", path_name="WEIGHT_0", use_pickle=True)
    table = {"config": {"x": {"path_name": "weight_0", "use_pickle": False}}}
    parts["data/weights/z_config.json"] = json.dumps(table).encode()


def renamed_input(name: str) -> Callable[[Parts, Path], None]:
    """torch.fx writes the names of values into source that it executes."""

    def change(parts: Parts, canary: Path) -> None:
        text = json.dumps(name.replace("CANARY", str(canary)))
        parts[GRAPH] = parts[GRAPH].replace(b'"unused"', text.encode())

    return change


def overlapping(parts: Parts, canary: Path) -> None:
    def change(document: Any) -> None:
        meta = document["config"]["0.weight"]["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 2**40}, {"as_int": 4}], [{"as_int": 0}, {"as_int": 0}]

    edit(parts, WEIGHTS, change)


def shape(text: str) -> Callable[[Parts, Path], None]:
    return lambda parts, canary: every(parts, "expr_str", text.replace("CANARY", str(canary)))


def upper_case(parts: Parts, canary: Path) -> None:
    parts.pop(SAMPLES)
    parts["DATA/SAMPLE_INPUTS/model.pt"] = protocol_0(canary)


def tree(kind: str, context: object) -> str:
    return json.dumps([1, {"type": kind, "context": context, "children_spec": []}])


def keyword_tree(name: str) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    keywords = {"type": "builtins.dict", "context": json.dumps([name]), "children_spec": [leaf]}
    none = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    return json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [none, keywords]}])


ENUM = json.dumps({"__enum__": True, "fqn": "antigravity:X", "name": "Y"})
DEFAULTDICT = {"default_factory_module": "os", "default_factory_name": "getcwd", "dict_context": []}

#: name → (change of a genuine archive's parts, whether the sizes are open)
TRICKS: dict[str, tuple[Callable[[Parts, Path], object], bool]] = {
    "pt2-samples-old-save": (lambda p, c: p.update({SAMPLES: old_save(c)}), False),
    "pt2-samples-plain-save": (lambda p, c: p.update({SAMPLES: saved(c)}), False),
    "pt2-weight-protocol-0": (lambda p, c: pickled_weight(protocol_0(c))(p, c), False),
    "pt2-weight-old-save": (lambda p, c: pickled_weight(old_save(c))(p, c), False),
    "pt2-weights-older-layout": (lambda p, c: p.update({"data/weights/model.pt": protocol_0(c)}), False),
    "pt2-constants-older-layout": (lambda p, c: p.update({"data/constants/model.pt": protocol_0(c)}), False),
    "pt2-opaque-called-raw": (opaque, False),
    "pt2-inner-name-upper-case": (lambda p, c: p.update({SAMPLES: inner("DATA.PKL", protocol_0(c))}), False),
    "pt2-inner-pickle-of-257-mb": (
        lambda p, c: p.update({SAMPLES: inner("data.pkl", protocol_0(c) + bytes(257 << 20))}),
        False,
    ),
    "pt2-folder-upper-case": (upper_case, False),
    "pt2-decoy-table": (decoy, False),
    "pt2-from-file": (
        lambda p, c: node(
            p,
            "torch.ops.aten.from_file.default",
            ("filename", {"as_string": str(c)}),
            ("shared", {"as_bool": True}),
            ("size", {"as_int": 16}),
        ),
        False,
    ),
    "pt2-set-storage": (lambda p, c: node(p, "torch.ops.aten.set_.source_Tensor_storage_offset"), False),
    "pt2-resize": (lambda p, c: node(p, "torch.ops.aten.resize_.default"), False),
    "pt2-out-variant": (lambda p, c: node(p, "torch.ops.aten.linear.out"), False),
    "pt2-node-calls-shell": (lambda p, c: node(p, "torch.os.system", ("command", {"as_string": f"touch {c}"})), False),
    "pt2-node-loads-library": (lambda p, c: node(p, "torch.ops.load_library", ("path", {"as_string": str(c)})), False),
    "pt2-node-custom-library": (lambda p, c: node(p, "torch.ops.profiler._record_function_enter_new.default"), False),
    "pt2-name-is-source": (renamed_input("unused=__import__('os').system('touch CANARY')"), False),
    "pt2-name-is-keyword": (renamed_input("lambda"), False),
    "pt2-guard-is-source": (
        lambda p, c: edit(p, GRAPH, lambda d: d.update(guards_code=[f"__import__('os').system('touch {c}')"])),
        False,
    ),
    "pt2-keyword-is-source": (lambda p, c: spec(p, keyword_tree(f"x=__import__('os').system('touch {c}')")), False),
    "pt2-tree-imports-enum": (lambda p, c: spec(p, tree("builtins.tuple", ENUM)), False),
    "pt2-tree-imports-factory": (lambda p, c: spec(p, tree("collections.defaultdict", DEFAULTDICT)), False),
    "pt2-shape-is-source": (shape("__import__('os').system('touch CANARY')"), True),
    "pt2-shape-tower": (shape("9**9**9**9"), True),
    "pt2-shape-nested-pow": (shape("Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))"), True),
    "pt2-shape-text-times": (shape("'s1' * 10**10"), True),
    "pt2-shape-many-max": (shape(f"Max({', '.join(f'Symbol({chr(39)}s{i}{chr(39)})' for i in range(500))})"), True),
    "pt2-shape-expands": (
        shape(f"Pow(Add({', '.join(f'Symbol({chr(39)}s{i}{chr(39)})' for i in range(30))}), Integer(8))"),
        True,
    ),
    "pt2-compiled-code": (lambda p, c: p.update({"data/aotinductor/model/model.so": b"\x7fELF"}), False),
    "pt2-script-object": (lambda p, c: p.update({"data/constants/custom_obj_0": saved(c)}), False),
    "pt2-extra-pickle": (lambda p, c: p.update({"extra/notes.pkl": pickle.dumps(Touch(c))}), False),
    "pt2-older-archive-inside": (lambda p, c: p.update({"serialized_state_dict.pt": saved(c)}), False),
    "pt2-expanded-weight": (overlapping, False),
    "pt2-two-cases": (lambda p, c: p.update({"Models/model.json": p[GRAPH]}), False),
    "pt2-leaves-folder": (lambda p, c: p.update({"../../evil": b"x"}), False),
    "pt2-counts-symbols": (
        lambda p, c: edit(p, GRAPH, lambda d: d.update(range_constraints={"u999999999": {"min_val": 0, "max_val": 9}})),
        False,
    ),
    "pt2-json-deep": (lambda p, c: p.update({GRAPH: b"[" * 200_000}), False),
}


def make(name: str, folder: Path, canary: Path) -> Path:
    """Write the archive of one trick."""
    change, dynamic = TRICKS[name]
    parts = genuine(dynamic)
    change(parts, canary)
    return write(folder / f"{name}.pt2", parts)

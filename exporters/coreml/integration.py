"""Code for the app that will carry the model: a Swift class with the package's real names, read from its spec."""

from __future__ import annotations

import re
from typing import Any

from edgedeploy.interfaces import Artefact


def integration_files(artefact: Artefact, model_name: str) -> dict[str, str]:
    """Swift sources by file name: the predictor for the app, and the script that measures on a Mac."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from edgedeploy.targets.coreml.mac import SCRIPT, script
    from edgedeploy.targets.coreml.package import open_package

    description = open_package(artefact.path).spec.description
    inputs = [_port(feature) for feature in description.input]
    outputs = [_port(feature) for feature in description.output]
    environment = Environment(
        loader=PackageLoader("edgedeploy.exporters.coreml", ""), undefined=StrictUndefined, keep_trailing_newline=True
    )
    type_name = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+", model_name) if word)
    if not type_name or type_name[0].isdigit():
        type_name = f"Model{type_name}"
    predictor = environment.get_template("predictor.swift.j2").render(
        name=re.sub(r"[^\w .-]", "_", model_name),
        type_name=type_name,
        package=artefact.main.name,
        inputs=inputs,
        outputs=outputs,
        image=any(port["swift_type"] == "CVPixelBuffer" for port in inputs),
        # Swift has no tuple of one element.
        single=len(outputs) == 1,
    )
    return {f"{type_name}Predictor.swift": predictor, SCRIPT: script()}


_MULTI_ARRAY = {65568: "Float32", 65552: "Float16", 65600: "Double", 131104: "Int32"}


def _port(feature: Any) -> dict[str, str]:
    kind = feature.type.WhichOneof("Type")
    name = feature.name
    if kind == "imageType":
        image = feature.type.imageType
        comment = f"{image.width} x {image.height} pixels"
        return {
            "name": name, "swift_type": "CVPixelBuffer", "comment": comment, "accessor": "imageBufferValue!",
            "feature": f"MLFeatureValue(pixelBuffer: {name})",
        }  # fmt: skip
    if kind == "dictionaryType":
        return _plain(name, "[AnyHashable: NSNumber]", "dictionaryValue", "probability by label")
    if kind == "stringType":
        return _plain(name, "String", "stringValue", "the most probable label")
    if kind == "int64Type":
        return _plain(name, "Int64", "int64Value", "the most probable label")
    array = feature.type.multiArrayType
    shape = " x ".join(str(size) for size in array.shape) or "any shape"
    return _plain(name, "MLMultiArray", "multiArrayValue!", f"{_MULTI_ARRAY.get(array.dataType, '?')}, {shape}")


def _plain(name: str, swift_type: str, accessor: str, comment: str) -> dict[str, str]:
    feature = f"MLFeatureValue(multiArray: {name})"
    return {"name": name, "swift_type": swift_type, "accessor": accessor, "comment": comment, "feature": feature}

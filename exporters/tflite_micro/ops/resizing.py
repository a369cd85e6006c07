"""Resize: RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR over images."""

from __future__ import annotations

from edgedeploy.exporters.tflite_micro.layout import channels_last
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles

#: coordinate_transformation_mode → (alignCorners, halfPixelCenters).
COORDINATES = {
    "asymmetric": (False, False),
    "align_corners": (True, False),
    "half_pixel": (False, True),
    "pytorch_half_pixel": (False, True),
}


def resize_refusal(node: Node) -> str:
    """Nearest or linear, over height and width, with sample points that the kernels use too."""
    value, output = node.input(0), node.output
    if value.rank not in (3, 4) or value.shape[:2] != output.shape[:2]:
        return "only height and width of images can be resized"
    mode = node.attributes.get("mode", "nearest")
    coordinates = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", "linear"):
        return f"mode {mode!r} has no kernel; 'nearest' and 'linear' have"
    if coordinates not in COORDINATES:
        return f"coordinate_transformation_mode {coordinates!r} has no kernel; {', '.join(COORDINATES)} have"
    if node.attributes.get("antialias", 0):
        return "antialiasing has no kernel"
    if mode == "nearest" and not _plain_nearest(node, coordinates):
        return "nearest sampling is taken as asymmetric with floor, or by whole factors"
    return ""


def _plain_nearest(node: Node, coordinates: str) -> bool:
    whole = all(out % size == 0 for size, out in zip(node.input(0).shape[2:], node.output.shape[2:], strict=True))
    if coordinates == "asymmetric":
        return bool(node.attributes.get("nearest_mode", "round_prefer_floor") == "floor")
    return whole and coordinates in ("half_pixel", "pytorch_half_pixel")


@handles("Resize", "Upsample", refusal=resize_refusal)
def resize(lower: Lowering, node: Node) -> None:
    """The kernels keep the scale."""
    layout = channels_last(node.input(0).rank)
    source = lower.operand(node.input(0), layout)
    output = lower.define(node.output, layout)
    height, width = lower.model.tensors[output].shape[1:3]
    nearest = node.attributes.get("mode", "nearest") == "nearest"
    align, half = COORDINATES[node.attributes.get("coordinate_transformation_mode", "half_pixel")]
    lower.emit(
        "RESIZE_NEAREST_NEIGHBOR" if nearest else "RESIZE_BILINEAR",
        (source, lower.vector((height, width))),
        (output,),
        alignCorners=align,
        halfPixelCenters=half and not nearest,
    )

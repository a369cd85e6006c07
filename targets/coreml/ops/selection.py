"""Sorting, picking the best, and classifier outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op


@op("topk")
def topk(call: Call) -> Results:
    """The k largest (or smallest) along ``axis``, best first, and their indices; ties keep the earlier one."""
    x, axis = call.tensor("x"), call.integer("axis", -1)
    count = call.integer("k", 1)
    if count == -1:
        count = x.shape[axis]
    order = torch.argsort(x, dim=axis, descending=not call.flag("ascending"), stable=True).narrow(axis, 0, count)
    values = torch.gather(x, axis, order)
    return (values, order) if call.flag("return_indices", True) else values


@op("argsort")
def argsort(call: Call) -> Results:
    """Indices that sort along ``axis``, descending unless told otherwise."""
    return torch.argsort(
        call.tensor("x"), dim=call.integer("axis", -1), descending=not call.flag("ascending"), stable=True
    )


@op("non_zero")
def non_zero(call: Call) -> Results:
    """Coordinates of everything that is not zero, one a row."""
    return torch.nonzero(call.tensor("x"))


@op("classify")
def classify(call: Call) -> Results:
    """The most probable label, and every label's probability."""
    probabilities = call.tensor("probabilities").reshape(-1)
    classes = [item.item() if isinstance(item, Tensor) else item for item in call.many("classes")]
    if len(classes) != len(probabilities):
        raise call.wrong(f"{len(probabilities)} probabilities for {len(classes)} labels")
    best = classes[int(probabilities.argmax())]
    return best, dict(zip(classes, probabilities.tolist(), strict=True))


def _overlap(boxes: Tensor) -> Tensor:
    """Intersection over union of every pair; boxes (B, 4) as centre x, centre y, width, height."""
    half = boxes[:, 2:] / 2
    low, high = boxes[:, :2] - half, boxes[:, :2] + half
    span = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0)
    inner = span.prod(-1)
    area = boxes[:, 2] * boxes[:, 3]
    return inner / (area[:, None] + area - inner).clamp(min=1e-12)


@op("non_maximum_suppression")
def non_maximum_suppression(call: Call) -> Results:
    """Greedy suppression by best class score; iOS 17 puts the box axis last and drops threshold and count.

    Rows beyond the survivors hold index -1 and zeros.
    """
    boxes, scores = call.tensor("boxes"), call.tensor("scores")
    boxes_last = not call.has("score_threshold")
    if boxes_last:
        boxes, scores = boxes.mT, scores.mT
    limit = call.number("iou_threshold")
    least = call.number("score_threshold", -torch.inf)
    most, per_class = call.integer("max_boxes"), call.flag("per_class_suppression")
    kept_boxes, kept_scores, kept_indices, counts = [], [], [], []
    for box, score in zip(boxes, scores, strict=True):
        best, label = score.max(-1)
        overlap = _overlap(box)
        chosen: list[int] = []
        for candidate in torch.argsort(best, descending=True, stable=True).tolist():
            if len(chosen) == most or float(best[candidate]) < least:
                break
            rivals = [index for index in chosen if not per_class or int(label[index]) == int(label[candidate])]
            if all(float(overlap[candidate, index]) <= limit for index in rivals):
                chosen.append(candidate)
        empty = most - len(chosen)
        kept_boxes.append(torch.cat([box[chosen], box.new_zeros(empty, 4)]))
        kept_scores.append(torch.cat([score[chosen], score.new_zeros(empty, score.shape[-1])]))
        kept_indices.append(torch.tensor(chosen + [-1] * empty, dtype=torch.int32))
        counts.append(len(chosen))
    result_boxes, result_scores = torch.stack(kept_boxes), torch.stack(kept_scores)
    if boxes_last:
        result_boxes, result_scores = result_boxes.mT, result_scores.mT
    return result_boxes, result_scores, torch.stack(kept_indices), torch.tensor(counts, dtype=torch.int32)

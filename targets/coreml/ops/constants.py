"""``const``: a value written into the program or its weight file."""

from __future__ import annotations

from edgedeploy.targets.coreml.registry import Call, Results, op


@op("const")
def const(call: Call) -> Results:
    """The value itself; a list where the type is a list (class labels)."""
    value = call.values["val"]
    return value if not isinstance(value, tuple) else list(value)


@op("identity")
def identity(call: Call) -> Results:
    """Its input."""
    return call.raw("x")

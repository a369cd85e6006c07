"""Branches and loops."""

from __future__ import annotations

from edgedeploy.targets.coreml.registry import Call, Results, op

_MAX_ITERATIONS = 1_000_000


@op("cond")
def cond(call: Call) -> Results:
    """Run the first block where the predicate holds, else the second."""
    chosen = call.operation.blocks[0 if call.flag("pred") else 1]
    return tuple(call.run_block(chosen, []))


@op("while_loop")
def while_loop(call: Call) -> Results:
    """Run the second block on the loop variables while the first says so."""
    condition, body = call.operation.blocks
    variables = call.many("loop_vars")
    for _ in range(_MAX_ITERATIONS):
        if not bool(call.run_block(condition, variables)[0]):
            return tuple(variables)
        variables = call.run_block(body, variables)
    raise call.wrong(f"the loop did not end within {_MAX_ITERATIONS} iterations")

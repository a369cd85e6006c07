"""What an exported program must not do: remember between two runs, or hold the batch it was traced with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: Operators that take an initial state of (layers, batch, size) and do not look whether its batch is the input's:
#: with another one torch's kernels read and write past its end.
_RECURRENT = ("aten.lstm.", "aten.gru.", "aten.rnn_tanh.", "aten.rnn_relu.", "aten.mkldnn_rnn_layer.")


def refuse_memory(program: ExportedProgram) -> None:
    """Refuse a program that changes its own buffers: its outputs depend on what ran before.

    Raises:
        InputError: naming the buffers.
    """
    changed = sorted({*program.graph_signature.buffers_to_mutate.values(), *_written_in_place(program)})
    if changed:
        raise InputError(
            "The model changes its own buffers while it runs; a deployed graph remembers nothing between two runs.",
            found=f"forward() writes to {', '.join(changed[:6])}{' ...' if len(changed) > 6 else ''}",
            remedy="Call model.eval() before the export; take a true state as an input of forward() and return it.",
        )


def _written_in_place(program: ExportedProgram) -> list[str]:
    """Buffers that an operator writes to, directly or through a view of them.

    Until its decomposition a program keeps operators such as ``add_`` as they are, and its signature names none.
    """
    buffers = dict(program.graph_signature.inputs_to_buffers)
    written = []
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            name = buffers.get(getattr(value, "name", ""))
            if name is None or argument.alias_info is None:
                continue
            if argument.alias_info.is_write:
                written.append(name)
            elif len(schema.returns) == 1:
                buffers[node.name] = name
    return written


def is_recurrent(graph: Any) -> bool:
    """True for a torch.fx graph with an LSTM, GRU or RNN operator."""
    return any(_name(node).startswith(_RECURRENT) for node in graph.nodes)


def fixed_states(program: ExportedProgram) -> list[str]:
    """Recurrent operators whose initial state holds a fixed batch although their input's batch is open."""
    found = []
    for node in program.graph.nodes:
        if not _name(node).startswith(_RECURRENT):
            continue
        states = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
        batches = [state.meta["val"].shape[1] for state in states if hasattr(state, "meta")]
        if any(isinstance(batch, int) for batch in batches):
            found.append(_name(node).split(".")[1].upper())
    return found


def _name(node: Any) -> str:
    return str(node.target) if node.op == "call_function" else ""

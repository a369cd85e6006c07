"""Canonical graphs of real models, captured once."""

from digits_graph import digits_graph

__all__ = ["digits_graph"]

"""Janus-R1: a unified multimodal model that draws, judges its own drawing, and redraws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from janus_r1.api import JanusR1
    from janus_r1.chain import Chain, Settings, load_chain

_HOME = {"JanusR1": "api", "Chain": "chain", "Settings": "chain", "load_chain": "chain"}
__all__ = ["Chain", "JanusR1", "Settings", "load_chain"]


def __getattr__(name: str) -> Any:
    """Import on first use: ``janus-r1 --help`` must not wait for torch."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"janus_r1.{_HOME[name]}"), name)
    raise AttributeError(f"module 'janus_r1' has no attribute {name!r}")

"""Janus-R1 in ComfyUI: put this folder (or a link to it) into ComfyUI's ``custom_nodes``."""

from __future__ import annotations

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]

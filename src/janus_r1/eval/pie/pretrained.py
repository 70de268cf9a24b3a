"""A transformers model with all of its weights, or an error: a random layer would give a number all the same."""

from __future__ import annotations

from typing import Any


def load_whole(kind: Any, name: str, **options: Any) -> Any:
    """``kind.from_pretrained(name)`` in float32, ready to measure.

    Raises:
        ValueError: if files of ``name`` are for another kind of model, or lack weights of this one.
    """
    config, _ = kind.config_class.get_config_dict(name)
    if config.get("model_type") != kind.config_class.model_type:
        raise ValueError(f"{name} is a {config.get('model_type')} model, not {kind.config_class.model_type}")
    model, report = kind.from_pretrained(name, dtype="float32", output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"])):
        raise ValueError(f"{name} lacks {len(missing)} of the weights, such as {missing[0]}")
    return model.eval()

"""LoRA through peft: small trained matrices beside the frozen ones of the language model.

The base stays as it was loaded, so it is the KL's reference for free. It is never merged into: the
model that generates receives base + alpha / rank * B A, made anew from the parts before every rollout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from janus_r1.errors import UserError
from janus_r1.fields import Checked, Count, Positive, Range
from janus_r1.files import write_atomically
from janus_r1.model.adapters import insert
from janus_r1.model.janus import Janus
from janus_r1.train.processes import this_process, weights, whole

HEADS = ["model.aligner", "model.generation_aligner", "model.generation_head", "lm_head"]
NAME = "default"  # peft's, of a model's only adapter


@dataclass
class LoraRecipe(Checked):
    """What is trained in place of all weights. Off by default."""

    rank: Count = 0
    """Rank of the adapters (r); 0 trains all weights."""
    alpha: Positive = 64
    """An adapter counts alpha / rank."""
    dropout: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """Of an adapter's input; above 0 the log-probs of training are no longer the sampler's."""
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Matrices of the language model's layers that get an adapter."""
    heads: bool = False
    """Train both aligners and both heads as well, whole."""
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen base; what is trained is float32."""


class Adapters:
    """The trained parts of ``janus``, into which they are put. ``source`` names its base.

    Raises:
        UserError: if peft is not installed, or ``targets`` names a matrix that is not there.
    """

    def __init__(self, janus: Janus, recipe: LoraRecipe, source: str, seed: int) -> None:
        peft = _peft()
        self.janus = janus
        _check_targets(janus, recipe.targets)
        config = peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=rf"model\.language_model\.layers\.\d+\.\w+\.({'|'.join(recipe.targets)})",
            modules_to_save=HEADS if recipe.heads else None,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # the same in every process
            self.model = insert(janus, config)
        self.model.peft_config[NAME].base_model_name_or_path = source
        for parameter in janus.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def off(self) -> AbstractContextManager[Any]:
        """Within it ``janus`` is its base, heads included."""
        return self.model.disable_adapter()

    @torch.no_grad()
    def merged(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name in a plain Janus, whole weight) of all that is trained, one after another. Collective."""
        from peft.tuners.lora import LoraLayer
        from peft.utils import ModulesToSaveWrapper

        for name, module in self.janus.named_modules():
            if isinstance(module, LoraLayer):
                yield f"{name}.weight", _merged(module)
            elif isinstance(module, ModulesToSaveWrapper):
                for part, parameter in module.modules_to_save[NAME].named_parameters():
                    yield f"{name}.{part}", whole(parameter)

    def save(self, folder: Path) -> None:
        """In peft's own format: ``PeftModel.from_pretrained(core, folder)`` reads it. Collective."""
        state = weights(self.model)

        def write(temporary: Path) -> None:
            self.model.save_pretrained(temporary, state_dict=state, save_embedding_layers=False)

        if this_process().is_main_process:
            write_atomically(folder, write)


def _merged(layer: Any) -> torch.Tensor:
    """In float32, whatever the base is kept in."""
    a, b = (whole(part[NAME].weight).float() for part in (layer.lora_A, layer.lora_B))
    return whole(layer.base_layer.weight).float() + layer.scaling[NAME] * (b @ a)


def _check_targets(janus: Janus, targets: list[str]) -> None:
    layer = janus.language.layers[0]
    matrices = [name for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)]
    known = sorted(name.rpartition(".")[2] for name in matrices)
    for target in targets:
        if target not in known:
            raise UserError(f"lora.targets: no matrix {target!r} in the language model; use {', '.join(known)}")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UserError("lora needs peft: pip install 'janus-r1[lora]', or set lora.rank to 0") from None
    return peft

"""Make a loaded model ready to be trained: what is frozen, and how its forward pass is computed."""

from __future__ import annotations

from janus_r1.engine.weights import layer_weights
from janus_r1.model.janus import Janus


def freeze(janus: Janus, vision: bool) -> None:
    """The VQ tokenizer never trains with the language model; SigLIP only in pretraining."""
    janus.core.model.vqmodel.requires_grad_(False)
    janus.core.model.vqmodel.eval()
    janus.core.model.vision_model.requires_grad_(not vision)


def prepare(janus: Janus, train_vision: bool, compile_model: bool, recompute: bool = False) -> None:
    """Freeze, choose the attention kernel, fuse the projections; compile, recompute activations if asked to.

    On a CPU the plain attention is twice as fast backwards as the fused kernel at these lengths.
    Fusing here means that a preview, which decodes, finds the weights as it wants them and moves nothing.
    """
    freeze(janus, vision=not train_vision)
    if janus.device.type == "cpu":
        janus.core.set_attn_implementation("eager")
    language = janus.core.model.language_model
    layer_weights(language)
    if recompute:
        language.gradient_checkpointing_enable({"use_reentrant": False})
        language.train()  # which transformers wants for it; there is no dropout
    if compile_model:
        language.compile()

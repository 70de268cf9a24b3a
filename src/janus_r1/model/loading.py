"""Loading and saving in transformers' own layout: safetensors, config, tokenizer; no remote code."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, GenerationConfig, JanusForConditionalGeneration

from janus_r1.errors import UserError
from janus_r1.files import read_json, write_atomically
from janus_r1.model.card import card
from janus_r1.model.janus import Janus
from janus_r1.model.tokenizer import SpecialTokens

EMBEDDED = Path(__file__).parent / "embedded"  # tiny models inside the package
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve(name: str) -> str:
    """``tiny-base`` and the like -> the folder inside the package; else the name itself.

    Raises:
        UserError: for a folder without a model, or a name that is neither a folder nor a Hub id.
    """
    embedded = {path.parent.name: path.parent for path in EMBEDDED.glob("*/config.json")}
    if name in embedded:
        return str(embedded[name])
    folder = Path(name)
    if folder.exists():
        if not (folder / "config.json").exists():
            raise UserError(f"{name} is not a model folder: it has no config.json")
        if read_json(folder / "config.json").get("model_type") != "janus":
            raise UserError(f"{name} does not hold a Janus model (model_type is not 'janus')")
        return name
    if name.count("/") != 1 or name.startswith((".", "/")):
        known = "".join(f"{known}, " for known in sorted(embedded))
        raise UserError(f"no model {name!r}: use {known}a folder, or a Hub id like owner/name")
    return name


def load(name: str, dtype: str = "float32", device: str = "cpu") -> Janus:
    """Load an embedded model, a folder or a Hub id.

    Raises:
        UserError: if it is missing, incomplete, truncated or not a Janus model.
    """
    source = resolve(name)
    try:
        core, info = JanusForConditionalGeneration.from_pretrained(
            source, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise UserError(f"cannot load the model {name}: {_first_line(error)}") from None
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *(str(m) for m in info["mismatched_keys"])]
    if wrong:
        raise UserError(f"the weights in {name} do not fit its config: {len(wrong)} keys, e.g. {wrong[0]}")
    core.model.vqmodel.float()  # whatever the rest is: in bfloat16 several per cent of its ids come out wrong
    try:
        return Janus(core.eval().to(device), tokenizer).eval()
    except ValueError as error:
        raise UserError(f"cannot use the model {name}: {error}") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def save(janus: Janus, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write the model so that transformers' own ``from_pretrained`` and ``generate`` can use it."""
    special = SpecialTokens.of(janus.tokenizer)
    core = janus.core
    core.config.image_token_id = janus.tokenizer.convert_tokens_to_ids("<image_placeholder>")
    core.generation_config = GenerationConfig(
        bos_token_id=special.bos,
        eos_token_id=special.eos,
        pad_token_id=special.pad,
        generation_kwargs={"boi_token_id": special.begin_of_image},
    )

    codes = core.config.vq_config.num_embeddings
    text = card(sum(p.numel() for p in core.parameters()), janus.image_size, janus.image_tokens, codes)

    def write(temporary: Path) -> None:
        # Copies: the decoder's fused weights are views of one storage, which safetensors refuses.
        state = {k: v.to(dtype or v.dtype, copy=True) for k, v in core.state_dict().items()}
        core.save_pretrained(temporary, state_dict=state, safe_serialization=True)
        janus.tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(text, encoding="utf-8")

    write_atomically(Path(folder), write)

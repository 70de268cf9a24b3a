"""Model folders: loaded from transformers' layout or DeepSeek's, saved in transformers'; no remote code.

Of the Hub only json, tokenizers and weights are fetched. What is saved holds all that transformers' ``JanusProcessor``
and ``generate`` read; DeepSeek's processor pads an image to a square with grey (127), resizes it and maps it to
[-1, 1], and its prompt template spells the roles as special tokens.

The mean of several models' weights is one model, no slower than each of them. Stages that were trained one from another
lie so near each other that what lies between them works, and the noise of the last steps averages out ("Model soups",
arXiv 2203.05482).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.janus.processing_janus import JanusProcessor

from janus_r1.errors import UserError, first_line, require
from janus_r1.files import write_atomically
from janus_r1.model.adapters import base_of, is_adapter, merge
from janus_r1.model.janus import Janus
from janus_r1.model.matrices import adjoin, quantize, refuse
from janus_r1.model.original import MODEL_TYPE, from_original
from janus_r1.model.streaming import assemble, check_index, stored_dtype, weight_files
from janus_r1.model.tokenizer import (
    ASSISTANT,
    BEGIN_OF_IMAGE,
    BOS,
    END_OF_IMAGE,
    EOS,
    IMAGE_PLACEHOLDER,
    PAD,
    USER,
    SpecialTokens,
    original_tokenizer,
)
from janus_r1.reading import read_json_object

EMBEDDED = Path(__file__).parent / "embedded"  # tiny models inside the package
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
INT8 = "int8"  # loaded in bfloat16, then the language model's matrices rounded
KV = {"auto": None, "fp8": torch.float8_e4m3fn}
PLAIN = ["*.json", "tokenizer*.model", "tokenizer.model"]  # what is fetched from the Hub beside weights
LAYOUTS = ("janus", MODEL_TYPE)  # transformers' and DeepSeek's, as config.json names them


def resolve(name: str) -> Path:
    """``tiny-base`` and the like -> the folder inside the package; a Hub id -> its local snapshot; a LoRA adapter ->
    its base.

    Raises:
        UserError: for a folder without a Janus model, or a name that is neither a folder nor a Hub id.
    """
    return _lineage(name)[0]


def _lineage(name: str) -> tuple[Path, list[Path]]:
    """The folder of a whole model, and the adapters on it from the first to the last."""
    adapters: list[Path] = []
    folder = _folder(name)
    while is_adapter(folder):
        if folder in adapters:
            raise UserError(f"{name} is a LoRA adapter of itself: set base_model_name_or_path")
        adapters.append(folder)
        folder = _folder(base_of(folder))
    if not (folder / "config.json").exists():
        raise UserError(f"{folder if adapters else name} is not a model folder: it has no config.json")
    if _kind(folder) not in LAYOUTS:
        raise UserError(f"{name} does not hold a Janus model (model_type is not {' or '.join(map(repr, LAYOUTS))})")
    return folder, adapters[::-1]


def _folder(name: str) -> Path:
    embedded = {path.parent.name: path.parent for path in EMBEDDED.glob("*/config.json")}
    folder = embedded.get(name, Path(name))
    if folder.exists():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/")):
        known = "".join(f"{known}, " for known in sorted(embedded))
        raise UserError(f"no model {name!r}: use {known}a folder, or a Hub id like owner/name")
    return _snapshot(name)


def _snapshot(name: str) -> Path:
    """Download ``owner/name`` (or find it in the cache); pickled weights only where there are no others.

    Raises:
        UserError: if it does not exist, is gated, or cannot be reached.
    """
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*PLAIN, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*PLAIN, "*.bin"]))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot get the model {name} from the Hub: {first_line(error)}") from None
    return folder


def _kind(folder: Path) -> str | None:
    config = read_json_object(folder / "config.json")
    return config.get("model_type") if isinstance(config, dict) else None


def load(
    name: str, dtype: str = "float32", device: str = "cpu", weights: str | Path | None = None, kv: str = "auto"
) -> Janus:
    """Load an embedded model, a folder or a Hub id, in transformers' layout or DeepSeek's original one.

    ``weights`` is a state dict with original names (as the official finetuning saves it) to take
    instead of the folder's own weights. ``dtype`` may be ``auto``: as the weights are stored; or ``int8``, to generate
    with: the language model's matrices in 8 bits, the rest in bfloat16. ``kv``: ``auto``, or ``fp8`` for cached keys
    and values in 8 bits. A folder or Hub id with a LoRA adapter is loaded over its base and merged into it.

    Raises:
        UserError: if it is missing, incomplete, truncated or not a Janus model, or a weight is no number.
    """
    folder, adapters = _lineage(name)
    original = _kind(folder) == MODEL_TYPE
    try:
        wanted = _dtype(folder, dtype, weights)
        if original or weights is not None:
            files = weight_files(folder) if weights is None else [Path(weights)]
            core = assemble(_config(folder), files, wanted, device, str(weights or name))
        else:
            core = _from_transformers(folder, wanted, device, name)
        tokenizer = (
            original_tokenizer(folder) if original else AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        )
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise UserError(f"cannot load the model {name}: {first_line(error)}") from None
    for adapter in adapters:
        core = merge(core, adapter)
    _check_numbers(core, name)
    try:
        janus = Janus(core.eval().to(device), tokenizer).eval()
    except ValueError as error:
        raise UserError(f"cannot use the model {name}: {error}") from None
    janus.cache_dtype = cache_dtype(kv)
    if dtype == INT8:
        quantize(janus.language)
    adjoin(janus.language)
    return janus


def _check_numbers(core: JanusForConditionalGeneration, name: str) -> None:
    """Raises UserError where a weight is NaN or infinite: such a model still draws, and says No to everything."""
    for key, weight in core.named_parameters():
        if weight.numel() and not all(end.isfinite() for end in torch.aminmax(weight.detach())):
            raise UserError(f"the weights of {name} are broken: {key} holds numbers that are not finite")


def describe(name: str, dtype: str = "float32", weights: str | Path | None = None) -> tuple[JanusConfig, torch.dtype]:
    """Config and dtype of what :func:`load` would load, without loading it; of int8 what it is loaded as.

    Raises:
        UserError: for a name or a dtype that means nothing.
    """
    folder = resolve(name)
    return _config(folder), _dtype(folder, dtype, weights)


def cache_dtype(kv: str) -> torch.dtype | None:
    """Of cached keys and values; None: the model's own.

    Raises:
        UserError: for a word that means nothing.
    """
    require(kv in KV, f"unknown kv {kv!r}: use {' or '.join(KV)}")
    return KV[kv]


def _dtype(folder: Path, dtype: str, weights: str | Path | None) -> torch.dtype:
    if dtype not in (*DTYPES, INT8, "auto"):
        raise UserError(f"unknown dtype {dtype!r}: use {', '.join(DTYPES)}, {INT8} or auto")
    if dtype == INT8:
        return torch.bfloat16
    return DTYPES[_stored(folder, weights) if dtype == "auto" else dtype]


def _config(folder: Path) -> JanusConfig:
    """Of either layout. Text head and embeddings are never one matrix in a Janus-Pro checkpoint."""
    if _kind(folder) == MODEL_TYPE:
        return from_original(read_json_object(folder / "config.json"))
    config = JanusConfig.from_pretrained(folder)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    return config


def _stored(folder: Path, weights: str | Path | None) -> str:
    """``auto``: bfloat16 stays; anything else fits into float32 without loss."""
    files = weight_files(folder) if weights is None else [Path(weights)]
    return "bfloat16" if stored_dtype(files) == torch.bfloat16 else "float32"


def _from_transformers(folder: Path, dtype: torch.dtype, device: str, name: str) -> JanusForConditionalGeneration:
    """transformers' own loading, straight to ``device``, strict about what it is lenient about."""
    check_index(folder)
    core, info = JanusForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, device_map={"": device}
    )
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *(str(m) for m in info["mismatched_keys"])]
    if wrong:
        raise UserError(f"the weights in {name} do not fit its config: {len(wrong)} keys, e.g. {wrong[0]}")
    core.model.vqmodel.float()  # whatever the rest is: in bfloat16 several per cent of its ids come out wrong
    return core


# ------------------------------------------------------------------------------------------ saving

NAMED_TOKENS = {"image_token": IMAGE_PLACEHOLDER, "boi_token": BEGIN_OF_IMAGE, "eoi_token": END_OF_IMAGE}

# Roles as in janus_r1.layout; an image stands where the message has it. No begin-of-sentence: the
# saved tokenizer puts it in front of every text, as DeepSeek's does, so that it never stands there twice.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set role = '" + USER + "' if message['role'] == 'user' else '" + ASSISTANT + "' %}"
    "{{ role + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '" + IMAGE_PLACEHOLDER + "\\n' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}"
    "{{ '\\n\\n' if message['role'] == 'user' else '" + EOS + "' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + ":' }}{% endif %}"
)

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: any-to-any
tags: [janus, text-to-image, introspection, janus-r1]
---

# A Janus model saved by janus-r1

Architecture: transformers' `JanusForConditionalGeneration` with {parameters:.1f} M parameters; images of
{size}x{size} pixels are {tokens} ids of {codes} codes.

```python
from janus_r1 import JanusR1

model = JanusR1.from_pretrained("path/to/this/folder")
chain = model.generate("a red circle left of a blue square")[0]
print(chain.rounds[0].verdict.text)
```

It draws, says Yes or No to its own drawing and why, and redraws until it is satisfied. What it was
trained on and what it scores is in the run folder beside it (`recipe.json`, `metrics.jsonl`).
"""


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of what is part of a larger storage (matrices that stand side by side), which safetensors refuses."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def save(janus: Janus, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write the model so that transformers' own ``from_pretrained`` and ``generate`` can use it.

    Raises:
        UserError: for a model in int8, which holds rounded weights.
    """
    refuse(janus)
    special = SpecialTokens.of(janus.tokenizer)
    core = janus.core
    core.config.image_token_id = janus.tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER)
    core.generation_config = GenerationConfig(
        bos_token_id=special.bos,
        eos_token_id=special.eos,
        pad_token_id=special.pad,
        generation_kwargs={"boi_token_id": special.begin_of_image},
    )
    codes = core.config.vq_config.num_embeddings
    text = _card(sum(p.numel() for p in core.parameters()), janus.image_size, janus.image_tokens, codes)

    def write(temporary: Path) -> None:
        state = {k: _alone(v.to(dtype or v.dtype)) for k, v in core.state_dict().items()}
        core.save_pretrained(temporary, state_dict=state, safe_serialization=True)
        if dtype:  # the config names the dtype in memory
            _rename_dtype(temporary / "config.json", str(dtype).removeprefix("torch."))
        _save_processor(janus.tokenizer, janus.image_size, janus.image_tokens, temporary)
        (temporary / "README.md").write_text(text, encoding="utf-8")

    write_atomically(Path(folder), write)


def _rename_dtype(config: Path, name: str) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(re.sub(r'"dtype": "\w+"', f'"dtype": "{name}"', text), encoding="utf-8")


def _save_processor(tokenizer: PreTrainedTokenizerBase, image_size: int, image_tokens: int, folder: Path) -> None:
    """Write tokenizer, image processor and chat template for ``JanusProcessor.from_pretrained``."""
    # A new object around the same vocabulary: the caller's own must not change.
    named = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=NAMED_TOKENS,
        add_bos_token=True,
    )
    images = JanusImageProcessorPil(
        size={"height": image_size, "width": image_size},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    JanusProcessor(images, named, chat_template=CHAT_TEMPLATE, num_image_tokens=image_tokens).save_pretrained(folder)


def _card(parameters: int, size: int, tokens: int, codes: int) -> str:
    """README.md of a model folder."""
    return CARD.format(parameters=parameters / 1e6, size=size, tokens=tokens, codes=codes)


# ------------------------------------------------------------------------------------------- the mean of several


@torch.no_grad()
def average(sources: Sequence[str]) -> Janus:
    """The plain mean, in float32. What all have in common stays as it is, bit for bit.

    Raises:
        UserError: for fewer than two models, or for models of different sizes or tokenizers.
    """
    require(len(sources) >= 2, "average takes two models or more")
    result = load(sources[0], "float32")
    own, common = result.core.state_dict(), {}
    for name, weight in own.items():
        if weight.is_floating_point():
            common[name] = weight.clone()
            weight.mul_(1 / len(sources))
    for source in sources[1:]:
        other = load(source, "float32")
        _check(result, other, sources[0], source)
        theirs = other.core.state_dict()
        for name, weight in own.items():
            if name in common and not torch.equal(common[name], theirs[name]):
                del common[name]
            if weight.is_floating_point():
                weight.add_(theirs[name] * (1 / len(sources)))
    for name, weight in common.items():
        own[name].copy_(weight)
    return result


def _check(one: Janus, other: Janus, first: str, source: str) -> None:
    shapes = [{name: weight.shape for name, weight in janus.core.state_dict().items()} for janus in (one, other)]
    if shapes[0] != shapes[1]:
        raise UserError(f"{source} is not of the same size as {first}: models to average come from one another")
    if one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise UserError(f"{source} has another tokenizer than {first}: models to average come from one another")

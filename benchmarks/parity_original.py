"""Our model beside DeepSeek's own modules, on the same random weights: the largest difference of every stage.

    git clone https://github.com/deepseek-ai/Janus path/to/Janus        # MIT; outside this repository
    pip install --no-deps --target path/to/extra timm einops torchvision
    python benchmarks/parity_original.py --checkout path/to/Janus --extra path/to/extra
    python benchmarks/parity_original.py ... --record tests/data/original.npz   # the pair that a test replays

SigLIP-L/16-384 and VQ-16 at their real sizes, a language model of Janus-Pro-1B's width with two layers,
float32. The original is built, filled, saved in its own layout and loaded by ``janus_r1.model.loading``.
The checkout expects older packages: :func:`import_original` says what is put in their place, while it is
imported only. Nothing of it is copied here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import types
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import JanusConfig, PreTrainedTokenizerBase
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from janus_r1.engine.decoder import Decoder
from janus_r1.images import square
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.model.loading import load
from janus_r1.model.presets import janus_config, llama_config, pro_config
from janus_r1.model.tokenizer import ASSISTANT, BEGIN_OF_IMAGE, USER, train_tokenizer
from janus_r1.model.vq import decode
from janus_r1.segments import Drawn, Seen, Text

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from originals import to_original_config

CAPTIONS = ["a red circle", "two blue squares left of a large pink heart", "  a ring, three stars and a cross. "]
SHAPES = [(640, 427), (100, 333), (384, 384), (1000, 37), (51, 50)]  # width, height of preprocessed images
GUIDANCE = 5.0
TOWER = "siglip_large_patch16_384"


# -------------------------------------------------------------------------------- weights and inputs


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights that depend on name and shape alone, alike on every machine.

    Of about unit gain, norms around 1 and no bias zero, so that no misplaced tensor goes unseen.
    """
    state = {}
    for name, shape in shapes.items():
        uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape, dtype=np.float32) * 2 - 1
        if len(shape) == 1:
            values = 0.1 * uniform + (0 if name.endswith("bias") else 1)
        else:
            fan = shape[-1] if len(shape) == 3 else int(np.prod(shape[1:]))
            values = uniform * np.float32((3 / fan) ** 0.5)
        state[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


def picture(width: int, height: int) -> np.ndarray:
    """Gradients and a chequerboard: uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    channels = (x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x // 7 + y // 5) % 2 * 255)
    return np.stack(channels, -1).astype(np.uint8)


def small_tokenizer() -> PreTrainedTokenizerBase:
    """Janus-Pro's special tokens over bytes and a few words, alike for ever."""
    return train_tokenizer([*CAPTIONS, "Yes", "No", "Yes, it does.", "No, it does not."] * 8, vocab_size=330)


def small_config(vocab_size: int) -> JanusConfig:
    """Everything small, for the pair that is recorded: 64x64 pixels, 64 ids of 96 codes."""
    vision = JanusVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8, num_image_tokens=64
    )
    vq = JanusVQVAEConfig(
        num_embeddings=96, base_channels=32, channel_multiplier=[1, 1, 1, 2], num_res_blocks=1, latent_channels=48
    )
    text = llama_config(vocab_size, hidden=64, intermediate=96, layers=2, heads=2, positions=1024)
    return janus_config(text, vision, vq)


# -------------------------------------------------------------------------------------- the original


class _AttrDict(dict):
    """What the checkout takes from the package attrdict, which Python >= 3.10 cannot import."""

    __getattr__ = dict.__getitem__


@contextmanager
def _older_packages() -> Iterator[None]:
    """Stand-ins while the checkout is imported.

    transformers 5 turns every config class into a dataclass, which the checkout's cannot be; a torchvision
    built for another torch lacks compiled operators, none of which is used here.
    """
    from transformers import AutoImageProcessor, AutoModelForCausalLM, LlamaForCausalLM, LlamaTokenizerFast  # noqa: F401
    from transformers.configuration_utils import PretrainedConfig
    from transformers.processing_utils import ProcessorMixin  # noqa: F401

    sys.modules["attrdict"] = types.ModuleType("attrdict")
    sys.modules["attrdict"].AttrDict = _AttrDict  # type: ignore[attr-defined]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
    before = PretrainedConfig.__dict__["__init_subclass__"]
    PretrainedConfig.__init_subclass__ = classmethod(lambda cls, **kwargs: None)  # type: ignore[assignment]
    try:
        yield
    finally:
        PretrainedConfig.__init_subclass__ = before


def import_original(checkout: Path, extra: Path | None) -> Any:
    """The checkout's package ``janus.models``."""
    sys.path.insert(0, str(checkout))
    if extra:
        sys.path.append(str(extra))
    with _older_packages():
        import janus.models as models
        import janus.models.siglip_vit
        import janus.models.vq_model  # noqa: F401
    return models


def resized(models: Any, config: JanusConfig) -> None:
    """Teach the checkout, which knows its sizes by name, those of ``config``."""
    vision, vq = config.vision_config, config.vq_config
    models.siglip_vit.SigLIP_MODEL_CONFIG[TOWER] |= {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "patch_size": vision.patch_size,
    }
    sizes = {"ch": vq.base_channels, "ch_mult": vq.channel_multiplier, "num_res_blocks": vq.num_res_blocks}
    theirs = models.vq_model

    def build():
        model = theirs.VQModel(theirs.ModelArgs(codebook_size=vq.num_embeddings, z_channels=vq.latent_channels))
        model.encoder = theirs.Encoder(z_channels=vq.latent_channels, **sizes)
        model.decoder = theirs.Decoder(z_channels=vq.latent_channels, **sizes)
        return model

    theirs.VQ_models["VQ-16"] = build


class Original:
    """DeepSeek's modules, called as its own scripts call them."""

    def __init__(self, models: Any, config: JanusConfig, tokenizer: Any) -> None:
        self.models, self.tokenizer = models, tokenizer
        self.size, self.grid = config.vision_config.image_size, config.vq_config.num_patches
        original = {key: value for key, value in to_original_config(config).items() if key != "model_type"}
        build = models.modeling_vlm
        self.model = build.MultiModalityCausalLM(build.MultiModalityConfig(**original)).eval()
        state = self.model.state_dict()
        self.model.load_state_dict(filled({name: tuple(tensor.shape) for name, tensor in state.items()}))
        normal = (0.5, 0.5, 0.5)
        self.processor = models.VLMImageProcessor(self.size, image_mean=normal, image_std=normal)

    def prompt(self, caption: str) -> list[int]:
        """Template, begin-of-sentence (which its tokenizer class puts in front) and begin-of-image."""
        turns = [{"role": USER, "content": caption}, {"role": ASSISTANT, "content": ""}]
        template = self.models.VLChatProcessor.apply_sft_template_for_multi_turn_prompts
        text = template(None, conversations=turns, sft_format="deepseek", system_prompt="") + BEGIN_OF_IMAGE
        return [self.tokenizer.bos_token_id, *self.tokenizer.encode(text, add_special_tokens=False)]

    def unconditional(self, ids: list[int]) -> list[int]:
        return [ids[0], *[self.tokenizer.pad_token_id] * (len(ids) - 2), ids[-1]]

    def preprocess(self, pixels: np.ndarray) -> torch.Tensor:
        """[3, H, W] in [-1, 1]."""
        return self.processor.preprocess([Image.fromarray(pixels)])["pixel_values"][0]

    def seen(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model.aligner(self.model.vision_model(pixels_BCHW))

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        ids = self.model.gen_vision_model.encode(pixels_BCHW)[2][2]
        return ids.view(len(pixels_BCHW), -1)

    def decode(self, ids_BS: torch.Tensor) -> torch.Tensor:
        shape = [len(ids_BS), 8, self.grid, self.grid]
        return self.model.gen_vision_model.decode_code(ids_BS, shape=shape)

    def hidden(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return self.model.language_model.model(inputs_embeds=torch.cat(parts, dim=1)).last_hidden_state

    def text(self, ids: list[int]) -> torch.Tensor:
        return self.model.language_model.get_input_embeddings()(torch.tensor([ids]))

    def text_logits(self, prompt: list[int], pixels: np.ndarray, tail: tuple[int, ...]) -> torch.Tensor:
        parts = [self.text(prompt), self.seen(from_uint8(pixels[None])), self.text(list(tail))]
        return self.model.language_model.lm_head(self.hidden(parts))

    def image_logits(self, prompt: list[int], ids_BS: torch.Tensor) -> torch.Tensor:
        return self.model.gen_head(self.hidden([self.text(prompt), self.model.prepare_gen_img_embeds(ids_BS)]))

    def draw(self, prompt: list[int], tokens: int) -> torch.Tensor:
        """The likeliest ids under guidance, through transformers' growing cache: [1, tokens]."""
        embeddings = torch.cat([self.text(prompt), self.text(self.unconditional(prompt))])
        cache, drawn = None, []
        for _ in range(tokens):
            out = self.model.language_model.model(inputs_embeds=embeddings, use_cache=True, past_key_values=cache)
            cache = out.past_key_values
            conditional, unconditional = self.model.gen_head(out.last_hidden_state[:, -1])
            drawn.append((unconditional + GUIDANCE * (conditional - unconditional)).argmax())
            embeddings = self.model.prepare_gen_img_embeds(drawn[-1].repeat(2)).unsqueeze(1)
        return torch.stack(drawn)[None]


class Ours:
    """The same questions to our own model."""

    def __init__(self, model: Janus) -> None:
        self.model, self.layout = model, model.layout

    def prompt(self, caption: str) -> list[int]:
        return list(self.layout.prompt(caption).ids)

    def unconditional(self, ids: list[int]) -> list[int]:
        return list(self.layout.unconditional(Text(tuple(ids))).ids)

    def preprocess(self, pixels: np.ndarray) -> torch.Tensor:
        return from_uint8(square(pixels, self.model.image_size)[None])[0]

    def seen(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model.embed_seen(pixels_BCHW)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(pixels_BCHW)

    def decode(self, ids_BS: torch.Tensor) -> torch.Tensor:
        return decode(self.model.core.model.vqmodel, ids_BS)

    def text_logits(self, prompt: list[int], pixels: np.ndarray, tail: tuple[int, ...]) -> torch.Tensor:
        row = (Text(tuple(prompt)), Seen(pixels, self.model.image_tokens), Text(tail))
        return self.model.text_logits(self.model.hidden(self.model.embed_rows([row])))

    def image_logits(self, prompt: list[int], ids_BS: torch.Tensor) -> torch.Tensor:
        row = (Text(tuple(prompt)), Drawn(tuple(ids_BS[0].tolist())))
        return self.model.image_logits(self.model.hidden(self.model.embed_rows([row])))

    def draw(self, prompt: list[int], tokens: int) -> torch.Tensor:
        """The engine's own, all of it."""
        decoder = Decoder(self.model)
        stream = decoder.open([Text(tuple(prompt))], [self.layout.unconditional(Text(tuple(prompt)))])
        return decoder.draw(stream, torch.zeros(1, self.model.image_tokens), GUIDANCE, temperature=0)[0][:, :tokens]


# ---------------------------------------------------------------------------------------- comparison


@torch.no_grad()
def answers(side: Original | Ours, size: int, tokens: int, codes: int, tail: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What one side makes of the fixed inputs."""
    prompts = [side.prompt(caption) for caption in CAPTIONS]
    shown = np.stack([picture(size, size), square(picture(3 * size, size), size)])
    pixels = from_uint8(shown)
    ids = torch.randint(0, codes, (2, tokens), generator=torch.Generator().manual_seed(0))
    found = {f"prompt {i}": torch.tensor(prompt) for i, prompt in enumerate(prompts)}
    found |= {f"unconditional {i}": torch.tensor(side.unconditional(prompt)) for i, prompt in enumerate(prompts)}
    found |= {f"preprocess {w}x{h}": torch.as_tensor(side.preprocess(picture(w, h))) for w, h in SHAPES}
    found["seen"] = side.seen(pixels)
    found["vq ids"] = side.encode(pixels)
    found["decoded pixels"] = side.decode(ids)
    found["text logits"] = side.text_logits(prompts[0], shown[0], tail)
    found["image logits"] = side.image_logits(prompts[1], ids[:1])
    found["drawn ids"] = side.draw(prompts[1], tokens)
    return {name: value.numpy() for name, value in found.items()}


@torch.no_grad()
def control(ours: Ours, found: Mapping[str, np.ndarray]) -> float:
    """A fault that must show: the share of ids that transformers' own VQ encode, which skips a norm, has right."""
    size = ours.model.image_size
    pixels = from_uint8(np.stack([picture(size, size), square(picture(3 * size, size), size)]))
    ids = ours.model.core.model.vqmodel.encode(pixels).image_tokens
    return float((ids.view(2, -1).numpy() == found["vq ids"]).mean())


def compare(original: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Per stage the largest difference and the largest value; for ids, the share that is equal, and their number."""
    rows = {}
    for name, theirs in original.items():
        mine = ours[name]
        if theirs.shape != mine.shape:
            rows[name] = {"shapes": [theirs.shape, mine.shape]}
        elif theirs.dtype.kind == "i":
            share = float((theirs == mine).mean())
            rows[name] = {"equal": share, "of": theirs.size, "distinct": len(np.unique(theirs))}
        else:
            gap = np.abs(theirs.astype(np.float64) - mine)
            rows[name] = {"largest_difference": float(gap.max()), "largest_value": float(np.abs(theirs).max())}
    return rows


def save_original(original: Original, config: JanusConfig, folder: Path) -> Path:
    """The folder in DeepSeek's layout, everything that nothing uses included."""
    (folder / "config.json").write_text(json.dumps(to_original_config(config)))
    original.tokenizer.save_pretrained(folder)
    torch.save(original.model.state_dict(), folder / "pytorch_model.bin")
    return folder


def run(models: Any, config: JanusConfig, tokenizer: Any) -> tuple[Ours, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Our model, loaded from the folder that the original was saved to; the original's answers and ours."""
    original = Original(models, config, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(load(str(save_original(original, config, Path(folder)))))
    vision = config.vision_config
    inputs = (vision.image_size, vision.num_image_tokens, config.vq_config.num_embeddings, ours.layout.self_check.ids)
    return ours, answers(original, *inputs), answers(ours, *inputs)


def record(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """What the test needs: ids whole, floats in float32, large arrays only every so many values."""
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **{name: thin(value) for name, value in found.items()})


def thin(value: np.ndarray, most: int = 2048) -> np.ndarray:
    """At most ``most`` evenly spread values."""
    flat = value.reshape(-1)
    flat = flat.astype(np.int32 if flat.dtype.kind == "i" else np.float32)
    return flat[:: max(1, -(-flat.size // most))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="folder that holds the package janus")
    parser.add_argument("--extra", type=Path, help="folder with timm, einops and torchvision, where not installed")
    parser.add_argument("--record", type=Path, metavar="NPZ", help="write the small pair; compare that alone")
    options = parser.parse_args()
    models = import_original(options.checkout, options.extra)
    tokenizer = small_tokenizer()
    config = pro_config(2048, 5632, 2, 16, vocab_size=len(tokenizer))
    if options.record:
        config = small_config(len(tokenizer))
        resized(models, config)
    model, original, ours = run(models, config, tokenizer)
    for name, row in compare(original, ours).items():
        print(f"{name:24} {json.dumps(row)}")
    print(f"control: transformers' own VQ encode has {control(model, original):.1%} of the ids")
    if options.record:
        record(options.record, original)


if __name__ == "__main__":
    main()

"""Models in DeepSeek's layout, for the tests: written from a transformers model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from janus_r1.model.original import to_original, to_original_config
from janus_r1.model.tokenizer import PAD

UNUSED = {
    "vision_model.vision_tower.attn_pool.latent": torch.zeros(1, 1, 32),
    "gen_vision_model.quantize.codebook_used": torch.zeros(65536),
}


def write_tokenizer(janus, folder: Path) -> None:
    """As Janus-Pro's files are: Llama's class in the config, a null pad token, the pad in the map only."""
    janus.tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "pad_token": None, "legacy": True}
    path.write_text(json.dumps(config), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": PAD}), encoding="utf-8")


def write_original(janus, folder: Path, form: str = "bin", shards: int = 1, index: bool = True) -> Path:
    """A model folder in DeepSeek's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_original_config(janus.core.config)))
    write_tokenizer(janus, folder)
    state = to_original(janus.core.state_dict()) | UNUSED
    stem, suffix = {"bin": ("pytorch_model", "bin"), "safetensors": ("model", "safetensors")}[form]
    names, weight_map = sorted(state), {}
    for i in range(shards):
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i + 1:05}-of-{shards:05}.{suffix}"
        shard = {name: state[name].contiguous() for name in names[i::shards]}
        save_file(shard, folder / file) if form == "safetensors" else torch.save(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    if shards > 1 and index:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@torch.no_grad()
def logits(janus) -> list[torch.Tensor]:
    """Of the three streams: text, drawn and seen images; and decoded pixels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    ids = torch.randint(0, 96, (2, 64), generator=generator)
    text = janus.embed_text(torch.randint(0, 400, (2, 9), generator=generator))
    drawn = janus.hidden(torch.cat([text, janus.embed_drawn(ids)], 1))
    seen = janus.hidden(torch.cat([text, janus.embed_seen(pixels)], 1))
    decoded = torch.from_numpy(janus.decode_image(ids)).float()
    return [janus.text_logits(janus.hidden(text)), janus.image_logits(drawn), janus.text_logits(seen), decoded]

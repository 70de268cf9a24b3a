"""The nodes. A round is the unit: between two of them progress is shown, and an interruption takes effect."""

from __future__ import annotations

from functools import lru_cache

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import ComfyExtension, io

from janus_r1 import Chain, JanusR1, Settings
from janus_r1.chain import Verdict
from janus_r1.engine.decoder import Decoder
from janus_r1.images import square
from janus_r1.serve.rounds import Drawing, next_rounds, prepare

CATEGORY = "Janus-R1"
Model = io.Custom("JANUS_R1_MODEL")
DTYPES = ["auto", "float32", "bfloat16", "int8"]


@lru_cache(maxsize=2)
def loaded(name: str, dtype: str, device: str) -> JanusR1:
    """A model; the last two are kept."""
    return JanusR1.from_pretrained(name, dtype=dtype, device=device)


def to_images(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 [H, W, 3] each -> ComfyUI's float [B, H, W, 3] in 0 to 1."""
    return torch.from_numpy(np.stack(pictures)).float() / 255


def to_pictures(images: torch.Tensor) -> list[np.ndarray]:
    """ComfyUI's [B, H, W, C] in 0 to 1 -> uint8 [H, W, 3] each."""
    return [(image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy() for image in images]


def drawn(model: JanusR1, chains: list[Drawing]) -> list[Chain]:
    """All chains, a round of all of them at a time."""
    for chain in chains:
        prepare(model.model, chain)
    bar = comfy.utils.ProgressBar(sum(chain.settings.rounds for chain in chains))
    decoder, done = Decoder(model.model), 0
    active = chains
    while active:
        comfy.model_management.throw_exception_if_processing_interrupted()
        for chain, item in zip(active, next_rounds(decoder, active, lambda position, pixels: None), strict=True):
            chain.rounds.append(item)
            done += 1
        bar.update_absolute(done)
        active = [chain for chain in active if not chain.finished()]
    return [chain.chain() for chain in chains]


def story(chains: list[Chain]) -> str:
    """The verdict on each draft, a line each."""
    return "\n".join(
        f"sample {number}, draft {index}: {line(item.verdict)}"
        for number, chain in enumerate(chains, 1)
        for index, item in enumerate(chain.rounds, 1)
    )


def line(verdict: Verdict) -> str:
    return f"{' '.join(verdict.text.split())} (p_yes {verdict.p_yes:.2f})"


def outputs(chains: list[Chain]) -> io.NodeOutput:
    finals = to_images([chain.pixels for chain in chains])
    drafts = to_images([item.pixels for chain in chains for item in chain.rounds])
    return io.NodeOutput(finals, drafts, story(chains))


def sampling(rounds: int, temperature: float) -> list:
    """Inputs that drawing and editing share."""
    return [
        io.Int.Input("seed", default=0, min=0, max=2**32 - 1, control_after_generate=True),
        io.Int.Input("samples", default=1, min=1, max=64),
        io.Int.Input("rounds", default=rounds, min=1, max=8, tooltip="Most drafts of a chain"),
        io.Float.Input("guidance", default=1.5, min=1.0, max=20.0, step=0.1, tooltip="Janus-Pro wants 5"),
        io.Float.Input("temperature", default=temperature, min=0.0, max=2.0, step=0.05),
        io.Combo.Input("final", options=["last", "best"], default="last"),
    ]


CHAINS = [("images", io.Image), ("drafts", io.Image), ("verdicts", io.String)]


class JanusR1Load(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        devices = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
        return io.Schema(
            node_id="JanusR1Load",
            display_name="Janus-R1: load",
            category=CATEGORY,
            inputs=[
                io.String.Input("name", default="tiny-r1-edit", tooltip="In the package, a folder, or owner/name"),
                io.Combo.Input("dtype", options=DTYPES, default="auto"),
                io.Combo.Input("device", options=devices, default=devices[0]),
            ],
            outputs=[Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, name: str, dtype: str, device: str) -> io.NodeOutput:
        return io.NodeOutput(loaded(name, dtype, device))


class JanusR1Draw(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JanusR1Draw",
            display_name="Janus-R1: draw with introspection",
            category=CATEGORY,
            inputs=[Model.Input("model"), io.String.Input("prompt", multiline=True), *sampling(3, 1.0)],
            outputs=[kind.Output(display_name=name) for name, kind in CHAINS],
        )

    @classmethod
    def execute(cls, model: JanusR1, prompt: str, samples: int, **settings) -> io.NodeOutput:
        rows = [Drawing(prompt, Settings(**settings), row) for row in range(samples)]
        return outputs(drawn(model, rows))


class JanusR1Edit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        prompt = io.String.Input("instruction", multiline=True)
        return io.Schema(
            node_id="JanusR1Edit",
            display_name="Janus-R1: edit",
            category=CATEGORY,
            inputs=[Model.Input("model"), io.Image.Input("image"), prompt, *sampling(1, 0.5)],
            outputs=[kind.Output(display_name=name) for name, kind in CHAINS],
        )

    @classmethod
    def execute(cls, model: JanusR1, image: torch.Tensor, instruction: str, samples: int, **settings) -> io.NodeOutput:
        source = to_pictures(image[:1])[0]
        rows = [Drawing(instruction, Settings(**settings), row, source) for row in range(samples)]
        return outputs(drawn(model, rows))


class JanusR1Judge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JanusR1Judge",
            display_name="Janus-R1: judge",
            category=CATEGORY,
            inputs=[Model.Input("model"), io.Image.Input("image"), io.String.Input("text", multiline=True)],
            outputs=[
                io.Float.Output(display_name="p_yes", tooltip="Mean over the batch"),
                io.Boolean.Output(display_name="accepted", tooltip="All of the batch"),
                io.String.Output(display_name="verdicts"),
            ],
        )

    @classmethod
    def execute(cls, model: JanusR1, image: torch.Tensor, text: str) -> io.NodeOutput:
        side = model.model.image_size
        verdicts = model.judge([square(picture, side) for picture in to_pictures(image)], text)
        mean = sum(verdict.p_yes for verdict in verdicts) / len(verdicts)
        said = "\n".join(map(line, verdicts))
        return io.NodeOutput(mean, all(verdict.accepted for verdict in verdicts), said)


class JanusR1Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [JanusR1Load, JanusR1Draw, JanusR1Edit, JanusR1Judge]


async def comfy_entrypoint() -> JanusR1Extension:
    return JanusR1Extension()

"""``janus-r1 serve``: what the operator decides."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from janus_r1.errors import TextCut, UserError, require
from janus_r1.fields import Above0, Checked, Positive, Range, Window, width

if TYPE_CHECKING:
    from fastapi import FastAPI

KEY_VARIABLE = "JANUS_R1_API_KEY"
Rounds = Annotated[int, Range(ge=1, le=8)]


@dataclass(frozen=True)
class Options(Checked):
    """What is served, and what clients may ask of it."""

    dtype: Literal["float32", "bfloat16", "int8", "auto"] = "float32"
    """Of the weights; auto: as stored."""
    kv: Literal["auto", "fp8"] = "auto"
    """Cached keys and values: auto, or fp8."""
    adapters: tuple[str, ...] = ()
    """LoRA folders, each as name=folder; a request chooses one as its model."""
    aliases: tuple[str, ...] = ()
    """Further names that mean the model, for clients that only know gpt-image-1."""
    rounds: Rounds = 3
    """Most drafts of a chain, where a request does not say."""
    edit_rounds: Rounds = 1
    """The same for edits."""
    max_batch: Positive = 16
    """Rows drawn at once at most."""
    window: Window = "auto"
    """Image tokens drawn in one forward pass, for the same image; auto: as many as pay."""
    max_waiting: Positive = 256
    """Images in the house at most; beyond that requests get 503 and a time to come back."""
    per_client: Positive = 64
    """Images that one address may have in the house; beyond that it gets 429."""
    max_body_mb: Annotated[int, Range(ge=1, le=4096)] = 32
    """Largest request in megabytes."""
    max_megapixels: Above0 = 16.0
    """Largest picture that is decoded."""
    fetch_urls: bool = False
    """Fetch pictures from http(s) addresses in requests; lets clients make the server call anyone."""
    page: bool = True
    """Show the page at /page, where gradio is installed; needs one process."""
    gallery: Path | None = None
    """Folder in which the page keeps chains; without it nothing is kept."""
    trainer: Path | None = None
    """Offer rollouts with log-probs, and new weights from safetensors files in this folder; needs a key."""
    log_prompts: bool = False
    """Write prompts into the log."""

    def __post_init__(self) -> None:
        """Raises UserError for options that cannot be meant."""
        super().__post_init__()
        require(self.max_batch <= self.max_waiting, "max_batch must not be above max_waiting")
        taken = self.trainer is None or self.trainer.is_dir()
        require(taken, f"{self.trainer} is no folder to take weights from")


AS_IT_COMES = Options()


def serve(
    model: str = "tiny-r1-edit",
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Range(ge=0, le=65535)] = 8000,
    api_key_file: Path | None = None,
    device: str = "cpu",
    drain_s: Above0 = 300.0,
    options: Options = AS_IT_COMES,
) -> None:
    """Serve OpenAI's image endpoints, a judge, and a page that shows the model think.

    The key that clients must send is read from a file, or from the environment variable JANUS_R1_API_KEY; without
    either none is needed. SIGTERM ends the server when the requests that it has accepted are answered.

    Args:
        model: An embedded model, a folder or a Hub id
        host: Address to listen on; 0.0.0.0 for all of this machine's
        port: Port to listen on; 0 takes a free one
        api_key_file: File that holds the key which clients must send
        device: cpu, cuda, or several with commas (cuda:0,cuda:1): one process each
        drain_s: Seconds that answers may take after a SIGTERM before they are cut

    Examples:
        janus-r1 serve
        janus-r1 serve tiny-sft --port 8080 --gallery chains
        JANUS_R1_API_KEY=... janus-r1 serve midbee/Janus-Pro-R1-7B --device cuda --dtype bfloat16 --host 0.0.0.0

    Raises:
        UserError: for options that cannot be meant, and for a missing extra.
    """
    needed("serve")
    if options.page and find_spec("gradio") is None:
        options = replace(options, page=False)
        _say("no page: it needs gradio (pip install 'janus-r1[page]')")
    from janus_r1.serve.limits import is_loopback
    from janus_r1.serve.server import bind, run

    devices = [name.strip() for name in device.split(",") if name.strip()]
    require(bool(devices), "no device: pass --device cpu or cuda")
    if len(devices) > 1:
        require(options.trainer is None, "the trainer's endpoints need one process: name one --device")
        options = replace(options, page=False)  # a visitor's clicks would reach a process that does not know them
    key = _key(api_key_file)
    require(options.trainer is None or key is not None, f"the trainer's endpoints need a key: set {KEY_VARIABLE}")
    local = is_loopback(host)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not local and key is None:
        _say(f"warning: everybody who can reach {host} may use this server: set {KEY_VARIABLE} to ask for a key")
    with bind(host, port) as listening:
        shown, number = ("localhost" if local else host), listening.getsockname()[1]
        _say(f"loading {model} ({options.dtype}, {', '.join(devices)})")
        say = partial(_say_ready, f"http://{shown}:{number}", options.page)
        run(partial(make_app, model, options, key, local), devices, listening, drain_s, say)


def make_app(model: str, options: Options, key: str | None, local: bool, device: str) -> FastAPI:
    """The application on a device, as the operator wants it; ``key`` is what clients must send.

    Raises:
        UserError: for a model that cannot be loaded.
    """
    from transformers.utils import logging as noise

    from janus_r1.serve.app import create_app
    from janus_r1.serve.house import House, load_all
    from janus_r1.serve.limits import Defaults, Limits
    from janus_r1.serve.pictures import PictureLimits
    from janus_r1.serve.scheduler import Scheduler

    if not options.log_prompts:
        warnings.filterwarnings("ignore", category=TextCut)  # it spells the prompt; the answer says so, too
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    pictures = PictureLimits(
        min(20_000_000, options.max_body_mb * 1_000_000), round(options.max_megapixels * 1e6), options.fetch_urls
    )
    limits = Limits(options.max_body_mb * 1_000_000, per_client=options.per_client, pictures=pictures)
    models = load_all(model, options.dtype, device, options.kv, options.adapters)
    scheduler = Scheduler(
        models, max_batch=options.max_batch, max_waiting=options.max_waiting, window=width(options.window)
    )
    defaults = Defaults(options.rounds, options.edit_rounds)
    house = House(scheduler, limits, defaults, options.aliases, key, local, options.log_prompts)
    app = create_app(house)
    if options.trainer:
        from janus_r1.serve.trainer import add_trainer

        add_trainer(app, house, options.trainer)
    if options.page:
        from janus_r1.serve.page import mount

        mount(app, house, options.gallery)
    return app


def needed(extra: str) -> None:
    """Raises UserError where the extra ``serve`` is not installed."""
    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if find_spec(name) is None:
            raise UserError(f"serving needs {name}: pip install 'janus-r1[{extra}]'")


def _key(file: Path | None) -> str | None:
    """Raises UserError for a file without a key, or a key that cannot stand in a header."""
    from janus_r1.reading import read_text

    key = read_text(file, 10_000).strip() if file else os.environ.get(KEY_VARIABLE, "").strip()
    if file and not key:
        raise UserError(f"{file} holds no key")
    require(key.isascii() and key.isprintable(), "the key holds characters that a header cannot carry")
    return key or None


def _say(text: str) -> None:
    print(f"janus-r1: {text}", file=sys.stderr, flush=True)


def _say_ready(address: str, page: bool) -> None:
    shown = f"; the page is {address}/page/" if page else ""
    _say(f"serving at {address}/v1 (how: {address}/docs){shown}")

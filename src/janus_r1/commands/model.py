"""The model that a command was asked to use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from janus_r1.commands.checks import check_device
from janus_r1.commands.terminal import say
from janus_r1.errors import UserError, first_line

if TYPE_CHECKING:
    from janus_r1.api import JanusR1


def load_model(name: str, dtype: str, device: str, weights: str | None = None, kv: str = "auto") -> JanusR1:
    """The model, without transformers' own bars and notes.

    Raises:
        UserError: for whatever is wrong with the device or with the model's files.
    """
    say(f"loading {name} ({dtype}, {device})")
    quiet_transformers()
    from janus_r1.api import JanusR1

    check_device(device)
    with loading_errors(name):
        return JanusR1.from_pretrained(name, dtype=dtype, device=device, weights=weights, kv=kv)


def quiet_transformers() -> None:
    """No bars and notes of transformers' own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextlib.contextmanager
def loading_errors(name: str) -> Iterator[None]:
    """A config is a user's file too, and transformers raises anything about it: one line for all."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"cannot load the model {name}: {first_line(error)}") from error

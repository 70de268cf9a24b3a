"""The one exception that means "the user can fix this": the CLI prints it as one line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Bad input, a missing file, a wrong recipe key. The message names the mistake and the fix."""


def require(condition: bool, message: str) -> None:
    """Raises UserError with ``message`` where ``condition`` does not hold."""
    if not condition:
        raise UserError(message)


def first_line(error: BaseException) -> str:
    """What a foreign error says, for a message of one line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """ "did you mean X?" of a name that is none, or ``otherwise`` where nothing that is known is like it."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {close[0]}?" if close else otherwise


def one_line(text: str) -> str:
    """``text`` as one line for a terminal: control characters of a file name or a prompt are spelt out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


class UnknownWords(UserWarning):
    """A prompt is not in the model's language."""


class TextCut(UserWarning):
    """A prompt or an instruction is longer than what the model reads of it."""


def foreign(prompt: str, unknown: Sequence[str]) -> str:
    """What a user is told of a prompt with words that the model does not know."""
    words = ", ".join(unknown)
    return f'the model has never seen the words {words} of "{prompt}": what it draws and says will mean little'

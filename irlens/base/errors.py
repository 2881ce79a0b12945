"""The one exception for a user's mistake: a single clear line, exit code 2."""

import difflib
from collections.abc import Iterable

from irlens.base.secrets import redact


class UserError(Exception):
    """Bad input or a missing part. The message says what is wrong, where, and what would be right; never a secret."""

    def __init__(self, *said: object):
        super().__init__(*(redact(one) if isinstance(one, str) else one for one in said))


class NothingToRank(UserError):
    """No prompt of an iteration gives a list to train on: this training ends; others of the same study may go on."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence end for an unknown `name`: the closest of `known`, then all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known)}"

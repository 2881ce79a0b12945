"""The recipe that a command names, with its judges as the command has them."""

from __future__ import annotations

from irlens.commands.reproducing import Reproduce
from irlens.reproduce import chat, recipe
from irlens.reproduce.records import Recipe

OF_JUDGES = ("judge", "template", "price", "base_url", "served_model", "api_key_env")


def load(settings: Reproduce) -> Recipe:
    """The recipe of `irlens reproduce` with these settings. A rehearsal has MixEval's steps without its folder, of which it
    makes a stand-in. Raises UserError: see `recipe.load` and `chat.told`."""
    folder = settings.mixeval or (chat.MIXEVAL if settings.rehearse else None)
    found = recipe.load(settings.recipe or "", settings.preset, folder)
    plain = Reproduce()
    given = {name: getattr(settings, name) for name in ("max_calls", "yes")}
    limits = {name: value for name, value in given.items() if value != getattr(plain, name)}
    return chat.told(found, {name: getattr(settings, name) for name in OF_JUDGES}, limits)

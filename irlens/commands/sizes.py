"""How many prompts are trained on and how many held out, where a data set has fewer than the defaults want."""

from __future__ import annotations

from dataclasses import replace

from irlens.base.options import Default
from irlens.commands.settings import Train
from irlens.retrieve.policy import Say

HELD_OUT = 0.25  # the share of the prompts that is held out where they are few
PLACES = {"eval_limit": "in between", "test_limit": "at the end"}


def shrunk(settings: Train, distinct: int, lent: list[str], name: str, say: Say) -> Train:
    """`settings` with the sizes that were left at their defaults made to fit into so many `distinct` prompts.

    lent: which of eval_limit and test_limit come out of these prompts too. A size that was asked for stays as it is, even one that is the default; what
    then still does not fit is refused, with all sizes named, by whoever takes the prompts. A line says what became of
    them.
    """
    sizes = {size: getattr(settings, size) for size in ("prompts", *lent)}
    if sum(sizes.values()) <= distinct:
        return settings
    free = [size for size in sizes if isinstance(sizes[size], Default)]
    fixed = sum(value for size, value in sizes.items() if size not in free)
    if not free or distinct - fixed < len(free):
        return settings
    found = _divided(sizes, free, distinct)
    where = " and ".join(f"{found[size]} {PLACES[size]}" for size in lent)
    held = f", held out {sum(found[size] for size in lent)} ({where})" if lent else ""
    wanted = ", ".join(f"--{size.replace('_', '-')} {sizes[size]}" for size in free if found[size] < sizes[size])
    say(f"{distinct:,} prompts of {name}: trained on {found['prompts']}{held}; {wanted} would be more than there are")
    return replace(settings, **found)


def _divided(sizes: dict[str, int], free: list[str], distinct: int) -> dict[str, int]:
    """The sizes, those that are `free` made smaller: a quarter is held out, in equal parts, and the rest trained on."""
    held = [size for size in sizes if size != "prompts"]
    room = distinct - sum(sizes[size] for size in sizes if size not in free)  # for those that are free
    found = dict(sizes)
    if "prompts" in free and held:
        fixed = sum(sizes[size] for size in held if size not in free)
        spare = max(round(HELD_OUT * distinct) - fixed, sum(size in free for size in held))
        room = min(room - 1, spare)
    some = [size for size in held if size in free]
    for i, size in enumerate(some):
        found[size] = min(sizes[size], -(-room // (len(some) - i)))
        room -= found[size]
    if "prompts" in free:
        found["prompts"] = min(sizes["prompts"], distinct - sum(found[size] for size in held))
    return found

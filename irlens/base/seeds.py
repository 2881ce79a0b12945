"""The one place where random numbers begin: a number of its own for every seed, iteration and purpose."""

from irlens.base.errors import UserError

# What random numbers are for. New purposes go to the end: a place is a part of the number.
PURPOSES = (
    "draws",  # of a policy: `passk` and `mine-negatives` (iteration 0), and every iteration of `train`
    "unrelated draws",  # answers to prompts of another data set
    "evaluation",  # held-out draws, the same numbers for every policy
    "lists",
    "mining",
    "weights",  # new ones: adapters
    "training",  # the order of the lists, and dropout
    "bootstrap",  # intervals and tests
    "votes",  # orders of draws
    "random ranking",
    "judging",
    "index",  # which vectors an index learns from
    "grades",  # which candidate of a list gets which grade, where they are shuffled
    "reward",  # of a reward model that a training learns in between: its head, and the order of its lists
)
SEED, ITERATION, PURPOSE = 32, 16, 5
DERIVED = SEED + ITERATION + PURPOSE  # bits: 53 in all, which every format and every generator here can hold


def derive(seed: int, iteration: int, purpose: str) -> int:
    """A number below 2^53 that no other (seed, iteration, purpose) gives; `draws` of iteration 0 have the seed itself.

    iteration: 0 where there is none. Raises UserError for a seed outside 0 … 2^32 − 1, ValueError for an iteration
    outside 0 … 65,535 or a purpose that PURPOSES does not name.
    """
    if not 0 <= iteration < 2**ITERATION:
        raise ValueError(f"iteration {iteration} has no seeds: it must lie between 0 and {2**ITERATION - 1:,}")
    place = PURPOSES.index(purpose)
    return check(seed) | place << SEED | iteration << SEED + PURPOSE


def folded(number: int) -> int:
    """A number of `derive` in the 32 bits that the generators of torch (on a CPU) and of old NumPy read.

    Those of seeds below 2^20 and iterations below 32 stay apart: the multiples of the golden ratio spread evenly.
    """
    return (number ^ (number >> SEED) * 0x9E3779B1) % 2**32


def check(seed: int, option: str = "--seed", bits: int = SEED) -> int:
    """`seed`. Raises UserError, naming the option, for one outside 0 … 2^bits − 1 (DERIVED bits: a number of `derive` too)."""
    if not 0 <= seed < 2**bits:
        raise UserError(f"{option} must be a whole number from 0 to {2**bits - 1}, got {seed}")
    return seed

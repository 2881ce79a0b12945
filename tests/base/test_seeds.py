"""Random numbers of different seeds, iterations and purposes never begin at the same place."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlens.base import seeds
from irlens.base.errors import UserError
from irlens.commands.settings import PassK, Train

PLACES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.sampled_from(seeds.PURPOSES))


@given(PLACES, PLACES)
def test_two_places_never_coincide(one, other):
    assert (seeds.derive(*one) == seeds.derive(*other)) == (one == other)
    assert 0 <= seeds.derive(*one) < 2**53


def test_a_whole_grid_has_no_coincidence():
    grid = itertools.product(range(1000), range(6), seeds.PURPOSES)
    found = [seeds.derive(*place) for place in grid]
    assert len(set(found)) == len(found) == 1000 * 6 * len(seeds.PURPOSES)


def test_in_32_bits_the_first_seeds_and_iterations_stay_apart():
    """A million seeds of a place fill a block of 2^20 numbers; two places whose blocks differ share no number."""
    places = np.array([seeds.folded(seeds.derive(0, *at)) for at in itertools.product(range(32), seeds.PURPOSES)])
    assert len(set(places >> 20)) == len(places)
    assert len({seeds.folded(seeds.derive(s, 1, "training")) for s in range(1000)}) == 1000


def test_draws_of_a_command_have_the_seed_itself():
    assert seeds.derive(7, 0, "draws") == 7 and PassK(seed=7).seed_of("draws") == 7


@pytest.mark.parametrize("seed", [-1, -(2**40), 2**32])
def test_a_seed_without_random_numbers_is_refused_before_anything_is_made(seed, tmp_path, irlens):
    for kind in (PassK, Train):
        with pytest.raises(UserError, match=f"--seed must be a whole number from 0 to 4294967295, got {seed}"):
            kind(seed=seed)
    done = irlens("train", "--seed", seed, "--out", tmp_path / "out", code=2)
    assert done.stderr.startswith("irlens: --seed must be") and not (tmp_path / "out").exists()
    irlens("demo", "--seed", seed, "--out", tmp_path / "out", code=2)
    irlens("reproduce", "fig2b", "--preset", "tiny", "--seeds", f"0,{seed}", "--out", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_an_unknown_place_is_an_error():
    with pytest.raises(ValueError):
        seeds.derive(0, 2**16, "draws")
    with pytest.raises(ValueError):
        seeds.derive(0, 0, "luck")

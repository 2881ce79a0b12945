"""A bit that flips in anything that a later start reads: it is made again, or refused in one line; never another result."""

import random
import shutil

import pytest


def flip(path, region, of, rng):
    """Flips one bit in the `region`-th of so many equal parts of a file."""
    size = path.stat().st_size
    start, stop = size * region // of, max(size * region // of + 1, size * (region + 1) // of)
    place = min(rng.randrange(start, stop), size - 1)
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ (1 << rng.randrange(8))]))


def kept(home):
    """The files below a folder that hold something, but for locks and SQLite's own."""
    return [p for p in sorted(home.rglob("*")) if p.is_file() and p.stat().st_size and p.name != ".lock"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, irlens, command, made):
    """name → (a copy of what a command made, what that is), each made once."""
    done = {}

    def of(name):
        if name not in done:
            home = tmp_path_factory.mktemp("made") / "home"
            irlens(*command(name, home))
            pristine = home.with_name("pristine")
            shutil.copytree(home, pristine)
            done[name] = (home, pristine, made(home))
        return done[name]

    return of


@pytest.fixture
def storm(unbroken, irlens_any, command, made):
    """Flips a bit in every file that `chosen` takes, a region of all at a time, and starts the command again."""

    def run(name, regions, chosen, together=True):
        home, pristine, before = unbroken(name)
        rng, flips, refusals = random.Random(name), 0, 0
        files = [path.relative_to(home) for path in kept(pristine_home(home, pristine)) if chosen(path)]
        assert files, f"{name}: nothing to flip"
        for some in [files] if together else [[file] for file in files]:
            for region in range(regions):
                pristine_home(home, pristine)
                for file in some:
                    flip(home / file, region, regions, rng)
                done = irlens_any(*command(name, home))
                if done.returncode == 2:
                    assert done.stderr.startswith("irlens: ") and done.stderr.count("\n") == 1, done.stderr
                    refusals += 1
                else:
                    assert done.returncode == 0, done.stderr
                    after = made(home)
                    assert set(after) == set(before)
                    other = [file for file in before if after[file] != before[file]]
                    assert not other, f"{name}, region {region} of {some}: other results in {other}\n{done.stdout}"
                flips += len(some)
        return flips, refusals

    return run


def pristine_home(home, pristine):
    shutil.rmtree(home)
    shutil.copytree(pristine, home)
    return home


def data(path):
    """What is made again: all but the manifests and the lists of checksums, which are flipped alone."""
    return path.name not in ("manifest.json", "checksums.txt") and "store" not in path.parts


LINES = [
    "sample", "passk", "index", "recall", "mine-negatives", "rerank", "verify", "best-of-n", "evaluate", "compare", "import",
    "export", "temperatures", "plot", "train", "train on lists", "reproduce",
]  # fmt: skip


@pytest.mark.parametrize("name", ["passk", "index"])
def test_a_flipped_bit_in_any_file_is_made_again(storm, name):
    flips, refusals = storm(name, 2, data)
    assert flips > 8 and not refusals


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_flipped_bits_all_over_every_file_are_made_again(storm, name):
    flips, refusals = storm(name, 4 if "train" in name or name == "reproduce" else 16, data)
    print(f"{name}: {flips} flips, made again")
    assert flips and not refusals

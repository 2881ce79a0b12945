"""A bit that flips in anything that a later start reads: it is made again, or refused in one line; never another result."""

import errno
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
    "sample", "passk", "index", "recall", "mine-negatives", "rerank", "verify", "best-of-n", "rewardbench", "evaluate", "compare", "import",
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


@pytest.mark.parametrize("name", ["passk"])
def test_a_flipped_manifest_is_refused_or_says_the_same(storm, name):
    flips, refusals = storm(name, 6, lambda path: path.name == "manifest.json")
    assert flips == 6 and refusals >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["passk", "index", "train on lists"])
def test_flipped_bits_all_over_manifests_and_lists_change_nothing(storm, name):
    regions = 4 if name.startswith("train") else 40
    own = storm(name, regions, lambda path: path.name == "manifest.json", together=False)
    lists = storm(name, regions, lambda path: path.name == "checksums.txt", together=False)
    print(f"{name}: {own[0] + lists[0]} flips of manifests and lists, {own[1] + lists[1]} refused")
    assert lists[1] == 0 < own[1]


@pytest.mark.slow
def test_flipped_bits_in_the_store_change_nothing(storm, tmp_path, unbroken, irlens, made, command):
    """The folder is drawn anew from a store of which every file is damaged."""
    home, pristine, before = unbroken("passk with a store")
    rng, flips = random.Random(1), 0
    files = [path.relative_to(pristine) for path in kept(pristine / "store")]
    for region in range(24):
        pristine_home(home, pristine)
        shutil.rmtree(home / "out")
        for file in files:
            flip(home / file, region, 24, rng)
            flips += 1
        irlens(*command("passk with a store", home))
        assert made(home) == before
    print(f"the store: {flips} flips")


GIVEN = {  # command → the files of another command's folder that it reads
    "evaluate": ("p", ["run.parquet", "qrels.parquet"]),
    "best-of-n": ("p", ["run.parquet", "qrels.parquet", "manifest.json"]),
    "plot": ("p", ["passk.csv"]),
    "train on lists": ("t", ["iteration-1/lists.parquet"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
def test_a_flipped_bit_in_what_a_command_is_given_is_refused(name, world, irlens, irlens_any, command, made, tmp_path):
    irlens(*command(name, tmp_path / "whole"))
    folder, files = GIVEN[name]
    rng, refused, regions, before = random.Random(name), 0, 24, made(tmp_path / "whole")
    for file in files:
        path = world / folder / file
        whole = path.read_bytes()
        for region in range(regions):
            flip(path, region, regions, rng)
            home = tmp_path / f"{region}-{path.name}"
            done = irlens_any(*command(name, home))
            path.write_bytes(whole)
            assert done.returncode in (0, 2), done.stderr
            refused += done.returncode == 2
            if not done.returncode:
                assert path.name == "manifest.json" and made(home) == before
            elif path.name != "manifest.json":
                assert "not as it was written" in done.stderr and done.stderr.count("\n") == 1
    print(f"{name}: {regions * len(files)} flips of what it is given, {refused} refused")
    assert refused


@pytest.mark.slow
def test_a_flipped_bit_in_a_trained_model_is_refused(tmp_path, world, irlens, irlens_any, command):
    command("train on lists", tmp_path)  # makes the training
    model, rng = tmp_path / "model", random.Random(2)
    shutil.copytree(world / "t" / "iteration-1" / "model", model)
    refused, files = 0, len(kept(model))
    for file in kept(model):
        whole = file.read_bytes()
        for region in range(8):
            flip(file, region, 8, rng)
            done = irlens_any(
                "sample", "--model", model, "--dataset", "sums", "--limit", 2, "-n", 1, "--out", tmp_path / "o"
            )
            file.write_bytes(whole)
            allowed = (0, 2) if file.name == "checksums.txt" else (2,)  # a list that names less refuses less
            assert done.returncode in allowed and done.stderr.count("\n") <= 1, (file, done.stdout, done.stderr)
            refused += done.returncode == 2
    print(f"a trained model: {8 * files} flips, {refused} refused")
    irlens("sample", "--model", model, "--dataset", "sums", "--limit", 2, "-n", 1, "--out", tmp_path / "o")


@pytest.mark.slow
def test_a_flipped_bit_in_a_checkpoint_is_trained_again(tmp_path, irlens, irlens_any, command, made, monkeypatch):
    """A training that ended after its last checkpoint, for want of room for the model."""
    from irlens.train import adapters

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    words = command("train on lists", tmp_path / "home")
    with monkeypatch.context() as patch:
        patch.setattr(adapters, "write", full)
        assert "the disk is full" in irlens_any(*words).stderr
    irlens(*command("train on lists", tmp_path / "whole"))
    whole, rng, flips = made(tmp_path / "whole"), random.Random(3), 0
    checkpoint = next((tmp_path / "home").rglob("complete")).parent
    files = [path.relative_to(tmp_path / "home") for path in kept(checkpoint)]
    shutil.copytree(tmp_path / "home", tmp_path / "pristine")
    for file in files:
        pristine_home(tmp_path / "home", tmp_path / "pristine")
        flip(tmp_path / "home" / file, rng.randrange(8), 8, rng)
        said = irlens(*words).stdout
        assert "not as it was written" in said or file.name == "checksums.txt"
        ours = made(tmp_path / "home")
        assert {name for name in whole if ours[name] != whole[name]} <= {
            "out/iteration-1/log.csv"
        }  # of what was watched
        flips += 1
    print(f"a checkpoint: {flips} flips, made again")

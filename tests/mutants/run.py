"""Mutation testing with mutmut: small faults are put into the code, and the tests of the room must notice.

    python tests/mutants/run.py                    a sample of 40 of each module, the same every time
    python tests/mutants/run.py --only lists,mine  some of the modules
    python tests/mutants/run.py --sample 0         all mutants: hours

Writes the table `tests/mutants/README.md` (but not for a part of the modules) and ends with exit code 1 where fewer
than 90 % of a module's mutants die, or where one lives that `survivors.toml` does not name. Each module is worked on in
a copy of the tree under `build/mutants`.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
MUTMUT = str(Path(sys.executable).with_name("mutmut"))
LEAST = 0.9
LENGTH = "tests/train/test_larpo.py::test_the_algorithm_is_one_page"  # with its mutants beside it, it is not
# name → (what is mutated, the tests that must notice)
MODULES = {
    "losses": (["irlens/train/losses/*.py"], ["tests/train/losses"]),
    "lists": (["irlens/negatives/lists.py"], ["tests/negatives/test_lists.py"]),
    "mine": (
        ["irlens/negatives/mine.py", "irlens/negatives/choose.py"],
        ["tests/negatives/test_mine.py", "tests/negatives/test_tiers.py"],
    ),
    "measures": (["irlens/measure/measures.py"], ["tests/measure/test_measures.py", "tests/measure/test_results.py"]),
    "stats": (["irlens/measure/stats.py"], ["tests/measure/test_stats.py"]),
    "larpo": (["irlens/train/larpo.py"], ["tests/train/test_larpo.py", "--deselect", LENGTH]),
    "logprobs": (
        ["irlens/models/logprobs.py"],
        ["tests/models/test_logprobs.py", "tests/models/test_block_mask.py"],
    ),
}
CONFIG = """
[tool.mutmut]
source_paths = ["irlens"]
only_mutate = {only!r}
also_copy = ["experiments", "figures", "README.md", "docs", "tests"]
pytest_add_cli_args_test_selection = {tests!r}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:xdist"]
track_dependencies = false
use_git_change_detection = false
"""
DEAD = {1, 3, -24, 24, 36, 37, -11, -9, 152, 255}  # failed, internal error, over time, refused by types, crashed


def main() -> int:
    """Runs the modules one after another; returns the exit code."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--only", default=",".join(MODULES), help="names of modules, with commas")
    ask.add_argument("--sample", type=int, default=40, help="mutants of each module; 0: all")
    ask.add_argument("--seed", type=int, default=0, help="which of them")
    ask.add_argument("--processes", type=int, default=1)
    given = ask.parse_args()
    named = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8")).get("survivor", [])
    rows, failed = [], False
    for name in given.only.split(","):
        began = time.monotonic()
        total, results = mutate(name, given.sample, given.seed, given.processes)
        alive = [difference(name, mutant) for mutant, code in results.items() if code not in DEAD]
        whys = [why(one, named) for one in alive]
        share = 1 - len(alive) / len(results)
        failed |= share < LEAST or None in whys
        rows.append((name, total, len(results), len(results) - len(alive), share, alive, whys))
        print(
            f"{name}: {len(results) - len(alive)} of {len(results)} die ({time.monotonic() - began:.0f} s)", flush=True
        )
        for one, reason in zip(alive, whys):
            print(f"  lives: {one['function']}\n    - {one['was']}\n    + {one['now']}\n    {reason or 'NOT NAMED'}")
    if given.only == ",".join(MODULES):
        (HERE / "README.md").write_text(table(rows, given.sample, given.seed), encoding="utf-8")
    return int(failed)


def mutate(name: str, sample: int, seed: int, processes: int) -> tuple[int, dict[str, int | None]]:
    """How many mutants the module has, and of those that were tried the exit code of their tests."""
    only, tests = MODULES[name]
    work = ROOT / "build" / "mutants" / name
    shutil.rmtree(work, ignore_errors=True)
    for part in ("irlens", "tests", "experiments", "figures", "docs"):
        shutil.copytree(ROOT / part, work / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", work)
    config = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (work / "pyproject.toml").write_text(config + CONFIG.format(only=only, tests=tests), encoding="utf-8")
    mutmut(work, processes, "no-such-mutant")  # makes them, and learns which tests run which function
    everyone = sorted(codes(work))
    if not everyone:
        raise SystemExit(f"{name}: no mutants were made; see {work}/log")
    tried = sorted(random.Random(f"{seed} {name}").sample(everyone, min(sample or len(everyone), len(everyone))))
    tests_of = json.loads((work / "mutants" / "mutmut-stats.json").read_text())["tests_by_mangled_function_name"]
    run_by_a_test = [mutant for mutant in tried if tests_of.get(mutant.rpartition("__mutmut_")[0])]
    mutmut(work, processes, *run_by_a_test)
    after = codes(work)
    untried = [mutant for mutant in run_by_a_test if after[mutant] is None]
    if untried:
        raise SystemExit(f"{name}: {len(untried)} mutants were not tried; see {work}/log")
    return len(everyone), {mutant: after[mutant] for mutant in tried}


def mutmut(work: Path, processes: int, *names: str) -> None:
    """`mutmut run` in a copy of the tree; what it prints goes to its log."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CI": "1"}  # CI: hypothesis tries the same examples every time
    command = [MUTMUT, "run", "--max-children", str(processes), *names]
    with (work / "log").open("a") as log:
        subprocess.run(command, cwd=work, env=environment, stdout=log, stderr=log)


def codes(work: Path) -> dict[str, int | None]:
    """Mutant → exit code of its tests, None if it was not tried."""
    out = {}
    for file in (work / "mutants" / "irlens").rglob("*.meta"):
        out |= json.loads(file.read_text())["exit_code_by_key"]
    return out


def difference(name: str, mutant: str) -> dict[str, str]:
    """The function of a mutant and its line before and after."""
    work = ROOT / "build" / "mutants" / name
    shown = subprocess.run([MUTMUT, "show", mutant], cwd=work, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shown.splitlines() if re.match(r"[-+](?![-+])", line)]
    was, now = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    module, _, function = mutant.rpartition("__mutmut_")[0].rpartition(".")
    function = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return {"function": f"{module.removeprefix('irlens.')}.{function}", "was": was, "now": now}


def why(one: dict, named: list[dict]) -> str | None:
    """Why nobody need notice this mutant; None where `survivors.toml` does not say."""
    return next((n["why"] for n in named if all(n[k] == one[k] for k in ("function", "was", "now"))), None)


def table(rows: list, sample: int, seed: int) -> str:
    """The page that is kept."""
    of = f"a sample of {sample} of each module, seed {seed}" if sample else "all"
    lines = [
        "# Mutants",
        "",
        "Small faults put into the code by [mutmut](https://mutmut.readthedocs.io); the tests of the same room must fail.",
        f"`make mutants` writes this page ({of}). At least {LEAST:.0%} must die, and those that live are named in",
        "`survivors.toml` with the reason why no test could tell them, or need not.",
        "",
        "| module | its mutants | tried | die | share |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {total} | {n} | {dead} | {share:.0%} |" for name, total, n, dead, share, *_ in rows]
    tried, dead = sum(row[2] for row in rows), sum(row[3] for row in rows)
    lines += [f"| together | {sum(row[1] for row in rows)} | {tried} | {dead} | {dead / tried:.0%} |", ""]
    if any(row[5] for row in rows):
        lines += ["Those that live:", "", "| where | was | became | why it may live |", "|---|---|---|---|"]
    for row in rows:
        for one, reason in zip(row[5], row[6]):
            was, now = (f"`` {one[k]} ``".replace("|", "\\|") for k in ("was", "now"))
            lines.append(f"| {one['function']} | {was} | {now} | {reason or '**not named**'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

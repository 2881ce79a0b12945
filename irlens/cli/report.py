"""What a person reads: tables of results with intervals, examples, and what is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irlens.base.untrusted import shown
from irlens.commands.evaluate import format_value, in_words

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.store import Facts

console = Console(highlight=False, soft_wrap=True)
tables = Console(highlight=False)


class Shown(Table):
    """A table whose cells are text as it is: brackets are brackets, control characters are shown, secrets are not."""

    def add_row(self, *cells: str | Text, **more) -> None:
        """A row; a cell of two kinds of text is made by `faint`."""
        super().add_row(*(Text(shown(cell)) if isinstance(cell, str) else cell for cell in cells), **more)


def new_table(title: str, *columns: str, left: int = 1) -> Shown:
    """A table whose first `left` columns are words and the rest numbers."""
    name = Text(shown(title), "bold") if title else None
    table = Shown(title=name, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    for i, name in enumerate(columns):
        table.add_column(Text(shown(name)), justify="left" if i < left else "right")
    return table


def faint(text: str, *below: str) -> Text:
    """A cell with further lines in a faint colour."""
    return Text.assemble(shown(text), *(("\n" + shown(line), "dim") for line in below))


def say(line: str) -> None:
    """A plain line, as it is."""
    console.print(shown(line), markup=False)


def wrapped(line: str) -> None:
    """A plain line, broken where the terminal ends."""
    tables.print(shown(line), markup=False)


def written(folder: Path) -> None:
    """Where the output went."""
    say(f"written to {folder}/ (run again with the same command to continue or check; see manifest.json)")


def _short(value: float) -> str:
    """`.43`, so that an interval fits a narrow column."""
    return f"{value:.2f}".removeprefix("0")


def short_value(row, *below: str) -> Text:
    """Value and interval of a results row, in two lines."""
    return faint(f"{row.value:.3f}", f"{_short(row.low)}–{_short(row.high)}", *below)


def curves(found: pd.DataFrame, title: str, first: str) -> None:
    """A row per run, a column per N."""
    cutoffs = sorted(found["cutoff"].unique())
    table = new_table(title, first, *(f"N = {cutoff}" for cutoff in cutoffs))
    for run, rows in found.groupby("run", sort=False):
        cells = {row.cutoff: short_value(row) for row in rows.itertuples()}
        table.add_row(str(run), *(cells.get(cutoff, "") for cutoff in cutoffs))
    tables.print(table)
    say(f"95 % intervals over {found['n'].iloc[0]:,} queries")


def drawn(found: pd.DataFrame) -> None:
    """A row per temperature."""
    table = new_table("Draws", "run", "prompts", "draws", "distinct per prompt", "tokens per draw", "unfinished")
    for row in found.itertuples():
        counted = (
            f"{row.prompts:,}",
            f"{row.draws:,}",
            f"{row.distinct:.1f}",
            f"{row.tokens:.1f}",
            f"{row.unfinished:,}",
        )
        table.add_row(str(row.run), *counted)
    tables.print(table)


def best_of_n(found: pd.DataFrame, quality: Path) -> None:
    """Best of N, a table for each pool of candidates, and how well each reranker ranks all of them."""
    import pandas as pd

    for tag, rows in found.groupby("tag", sort=False):
        curves(rows, f"Best of N: {tag}", "reranker")
    measured = pd.read_csv(quality)
    several = measured["tag"].nunique() > 1
    table = new_table("Agreement with the grades, over whole lists", "reranker", *dict.fromkeys(measured["measure"]))
    for (tag, run), rows in measured.groupby(["tag", "run"], sort=False):
        cells = [short_value(row, f"n = {row.n:,}") if row.n else "undefined" for row in rows.itertuples()]
        table.add_row(faint(str(run), *([str(tag)] if several else [])), *cells)
    tables.print(table)


def compared(path: Path) -> None:
    """The paired tests of `recall` in a sentence each for the smallest and the largest N, if several were compared."""
    import pandas as pd

    if not path.is_file():
        return
    tests = pd.read_csv(path)
    for row in tests[tests["measure"].isin({tests["measure"].iloc[0], tests["measure"].iloc[-1]})].itertuples():
        sure = "significant" if row.p_holm < 0.05 else "not significant"
        say(
            f"{row.measure.replace('Success', 'Recall')}: {row.after} against {row.before} {100 * row.difference:+.1f} "
            f"points [{100 * row.low:+.1f}, {100 * row.high:+.1f}], {sure} (p = {row.p_holm:.4f} after Holm)"
        )


def indexed(facts: dict) -> None:
    """What an index holds."""
    table = new_table("Index", "fact", "value", left=2)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    tables.print(table)


def results(found: pd.DataFrame) -> None:
    """A row per run and measure; nothing for an empty table."""
    if found.empty:
        return
    table = new_table("", "run", "measure", "value and 95 % interval", "queries", left=2)
    for row in found.itertuples():
        table.add_row(str(row.run), str(row.measure), format_value(row), f"{row.n:,}")
    tables.print(table)


def win_rates(found: pd.DataFrame) -> None:
    """A row per system: its win rates in points, each with its interval, best first, and who judged."""
    judges, baselines = (" and ".join(dict.fromkeys(found[name])) for name in ("judge", "baseline"))
    several = found["judge"].nunique() > 1
    head = ["system", *(["judge"] if several else []), "win rate", "LC win rate", "discrete", "prompts"]
    table = new_table(f"Win rates against {baselines} by {judges}", *head, left=1 + several)
    wanted = ("WinRate", "LCWinRate", "DiscreteWinRate")
    by = {name: found[found["measure"] == name].set_index(["run", "judge", "baseline"]) for name in wanted}
    for key in by["LCWinRate"].sort_values("value", ascending=False, kind="stable").index:
        rows = [by[name].loc[key] for name in wanted]
        cells = [*map(str, key[: 1 + several]), *map(points, rows), f"{int(rows[0].n):,}"]
        table.add_row(*cells)
    tables.print(table)


def judges(found: Mapping[str, pd.DataFrame]) -> None:
    """How judges agree, what sways each, and how each ranks the answers that another graded: a row per measure."""
    from irlens.commands import judges_pages as pages

    for name, title in pages.TITLES.items():
        if name in found:
            keys = [key for key in ("measure", "run", "judge", "against") if key in found[name].columns]
            table = new_table(title, *keys, "value and 95 % interval", "n", left=len(keys))
            for row in found[name].fillna(dict.fromkeys(keys, "")).itertuples():
                table.add_row(*(str(getattr(row, key)) for key in keys), pages.cell(row), f"{row.n:,}")
            tables.print(table)


def points(row) -> str:
    """A share in points, with its interval where there is one; nothing where there is no share."""
    if row.value != row.value:
        return ""
    interval = f" [{100 * row.low:.1f}, {100 * row.high:.1f}]" if row.low == row.low else ""
    return f"{100 * row.value:.2f}{interval}"


def systems(found: pd.DataFrame, tests: pd.DataFrame) -> None:
    """Systems by measure, best first, with the groups that cannot be told apart, and a sentence for each of a few tests."""
    from irlens.commands.compare_pages import system

    table = new_table("", "measure", "system", "value and 95 % interval", "group", "prompts", left=2)
    for row in found.itertuples():
        table.add_row(row.measure, system(row), format_value(row), row.group, f"{row.n:,}")
    tables.print(table)
    if "*" in set(found["group"]):
        say("a star: differs from the baseline (paired randomisation test, p below 0.05 after Holm)")
    elif (found["group"] != "").any():
        say(
            "systems that share a letter cannot be told apart (paired randomisation test, p of 0.05 or more after Holm)"
        )
    for row in tests.itertuples() if len(tests) <= 6 else ():
        say(_test_in_words(row))


def _test_in_words(row) -> str:
    """A paired test, and what it could have seen."""
    from irlens.commands.compare_pages import interval, number, seen

    less = "against" if row.measure == "win rate" else "less"
    more = " from one half" if row.measure == "win rate" else ""
    could = f"the smallest that it could see: {seen(row.detectable)}"
    if row.detectable == float("inf"):
        could = f"with {row.n:,} prompts it could see none"
    return (
        f"{row.measure}: {row.after} {less} {row.before} {row.difference:+.3f}{more} {interval(row.low, row.high, '+.3f')}, "
        f"p = {row.p_holm:.4f}, d = {number(row.effect, '+.2f')}; {could}"
    )


def mixeval(found: pd.DataFrame, tests: pd.DataFrame) -> None:
    """A row per system, a column per set and type, in per cent; what counts 0 for want of an answer; and the tests."""
    from irlens.measure.mixeval import TITLES, wide

    names, rows = wide(found)
    for title, some in (("%, with 95 % intervals over distinct items", [n for n in names if n in TITLES.values()]),
                        ("by type", [n for n in names if n not in TITLES.values()])):  # fmt: skip
        table = new_table(title, "system", *some)
        for system, cells in rows:
            known = dict(zip(names, cells))
            shown = (
                f"{100 * c.value:.1f} [{100 * c.low:.1f}, {100 * c.high:.1f}]" if (c := known[n]) else "" for n in some
            )
            table.add_row(system, *shown)
        tables.print(table)
    for row in found[found["measure"].isin(TITLES.values())].itertuples():
        lacking = f"; {row.missing:,} without a response: left out" if row.missing else ""
        unread = f"{row.unread:,} responses say nothing that can be read: 0{lacking}"
        say(f"{row.run}, {row.measure}: {row.n:,} items, {row.distinct:,} distinct; {unread}")
    for row in tests.itertuples() if len(tests) <= 6 else ():
        say(
            f"{row.measure}: {row.after} less {row.before} {100 * row.difference:+.1f} points "
            f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}], p = {row.p_holm:.4f} after Holm"
        )


def mined(lists: pd.DataFrame, tally: pd.DataFrame) -> None:
    """The tally per tier, and one example of each."""
    columns = ("negatives", "prompts without", "false negatives removed", "duplicates removed", "taken before")
    table = new_table("Negatives by tier", "tier", *columns)
    for row in tally.itertuples():
        counts = (
            f"{row.negatives:,}",
            f"{row.prompts_without:,}",
            _removed(row),
            f"{row.duplicates:,}",
            f"{row.taken:,}",
        )
        table.add_row(row.tier, *counts)
    tables.print(table)
    if tally["taken"].any():
        say("taken before: by another prompt or a choosier tier; a tier mined alone has every response to choose from")
    most = lists.groupby("query_id")["tier"].nunique()
    if most.empty:
        say("No prompt has a negative.")
        return
    example = lists[lists["query_id"] == most.index[most.to_numpy().argmax()]]
    table = new_table("One list", "tier", f"response to: {example['query'].iloc[0]}", left=2)
    meaning = dict(zip(tally["tier"], tally["meaning"]))
    for row in example.drop_duplicates("tier").itertuples():
        text = row.text.strip() if len(row.text) <= 400 else row.text.strip()[:400] + " …"
        table.add_row(faint(str(row.tier), meaning.get(row.tier, "the better one")), text, end_section=True)
    tables.print(table)


def _removed(row) -> Text:
    """How many, and by which reason if there is more than the verifier's."""
    from irlens.negatives.false_negatives import REASONS

    counts = {reason: getattr(row, reason.replace(" ", "_")) for reason in REASONS}
    several = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    return faint(f"{row.false_negatives:,}", *several)


def hardness(path: Path) -> None:
    """The hardness report that `mine-negatives` wrote: a row per tier, a column per measure."""
    import pandas as pd

    from irlens.negatives.hardness import MEASURES

    if not path.is_file():
        return
    found = pd.read_csv(path)
    present = [measure for measure in MEASURES if measure in set(found["measure"])]
    for start in range(0, len(present), 5):
        some = present[start : start + 5]
        title = "How hard each tier is" if not start else ""
        table = new_table(title, "tier", *(measure.replace("_", " ") for measure in some))
        for tier, rows in found.groupby("tier", sort=False):
            cells = {row.measure: faint(_digits(row.value), _span(row)) for row in rows.itertuples()}
            table.add_row(str(tier), *(cells.get(measure, "") for measure in some))
        tables.print(table)
    for measure in present:
        say(f"{measure.replace('_', ' ')}: {MEASURES[measure]}")
    most = found[found["measure"] != "without"].groupby("tier", sort=False)["n"].max()
    counts = ", ".join(f"{tier} {n:,}" for tier, n in most.items())
    say(f"95 % intervals over the prompts that have such a response: {counts}")


def _span(row) -> str:
    return f"{_digits(row.low)} to {_digits(row.high)}"


def _digits(value: float) -> str:
    """Two or three digits that say something."""
    return "–" if value != value else f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def temperatures(found: pd.DataFrame, sentences: list[str]) -> None:
    """The shares per temperature, and what they mean."""
    from irlens.negatives.temperatures import SHARES

    table = new_table("Lists by temperature", "temperature", *(name for name in SHARES))
    for temperature, rows in found.groupby("temperature"):
        cells = {row.measure: short_value(row) for row in rows.itertuples()}
        table.add_row(f"{temperature:g}", *(cells[name] for name in SHARES))
    tables.print(table)
    for name, meaning in SHARES.items():
        say(f"{name}: {meaning}")
    for sentence in sentences:
        say(sentence)


def trained(found: pd.DataFrame, tests: pd.DataFrame) -> None:
    """Each measure by iteration, and the last policy against the start in words."""
    names = ["start" if x == 0 else f"iteration {x}" for x in sorted(found["x"].unique())]
    table = new_table("Held-out problems by iteration", "measure", *names)
    for curve, rows in found.groupby("curve", sort=False):
        table.add_row(str(curve), *(format_value(row) for row in rows.sort_values("x").itertuples()))
    tables.print(table)
    for sentence in in_words(tests):
        say(sentence)


EXTRAS = {
    "vllm": ("vllm", "sampling with vLLM"),
    "ray": ("ray", "work spread over a cluster"),
    "math-verify": ("math_verify", "the verifier math; extra `math`"),
    "peft": ("peft", "LoRA and QLoRA training; extra `lora`"),
    "faiss-cpu": ("faiss", "approximate indexes; extra `dense`"),
    "faiss-gpu": ("faiss", "the same on GPUs, in the place of faiss-cpu; extra `faiss-gpu`"),
    "datasets": ("datasets", "data sets of the hub, and folders of save_to_disk; extra `datasets`"),
    "ir-datasets": ("ir_datasets", "the data set nq and every other collection of ir_datasets"),
    "inspect-ai": ("inspect_ai", "old versions of inspect_ai's logs, by its own reader"),
    "wandb": ("wandb", "logging to Weights & Biases"),
}


def store(found: Facts) -> None:
    """What a store holds, a row per maker."""
    from datetime import datetime

    from irlens.base.files import in_bytes

    table = new_table(f"Store {found.folder}", "of", "by", "number", "size", "last used", left=2)
    for line in found.lines:
        used = datetime.fromtimestamp(line.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(line.kind, line.what, f"{line.rows:,}", in_bytes(line.bytes), used)
    tables.print(table)
    say(
        f"{in_bytes(found.bytes)} in {found.files:,} files, of which {in_bytes(found.shared)} are the very files of output "
        f"folders too; index {in_bytes(found.index)}"
    )


def doctor() -> None:
    """Prints versions, devices and optional parts."""
    import importlib.util
    import os
    import platform

    import torch

    from irlens.commands.folder import PACKAGES, git_commit, version

    table = new_table("irlens doctor", "part", "found", left=2)
    table.add_row("python", platform.python_version())
    for name in PACKAGES:
        if name not in EXTRAS:
            table.add_row(name, version(name) or Text("missing", "red"))
    table.add_row("commit", git_commit() or "installed copy")
    table.add_row("cpu cores", f"{os.cpu_count()} (torch uses {torch.get_num_threads()})")
    gpus = [
        f"{torch.cuda.get_device_name(i)}, {torch.cuda.mem_get_info(i)[1] / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    table.add_row("gpu", "\n".join(gpus) or "none: 7B models want one; `--model tiny` does not")
    for name, (module, purpose) in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None and not (name.startswith("faiss") and not version(name))
        table.add_row(name, version(name) or "present" if found else f"not installed (optional; for {purpose})")
    tables.print(table)

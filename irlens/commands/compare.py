"""Stage `compare`: several runs or result folders against each other, by paired tests over the prompts that all have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import checksums, files
from irlens.base.errors import UserError
from irlens.base.options import identity
from irlens.commands import finished, runs
from irlens.commands.drawing import store_of
from irlens.commands.exchange import Compare
from irlens.commands.folder import OutputFolder
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    import pandas as pd

VALUES = ("per_query.parquet", "per_query.csv")  # of a folder without a run: what `recall` and `evaluate` leave


def compare(settings: Compare, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Measures and tests; returns the folder, the values (measure, run, value, low, high, n, group) and the tests.

    The folder holds values.csv, tests.csv (every pair, Holm over all), per_query.parquet, compare.md, compare.tex and the
    manifest. Systems of one group cannot be told apart (`measure.groups`). Raises UserError: fewer than two systems, no
    prompt or no measure that all have, judgements that are missing, more than one judge.
    """
    paths = _paths(settings)
    given = [name for name in ("qrels", "verifier", "reward") if getattr(settings, name)]
    if len(given) > 1:
        raise UserError(f"compare: one judge, not {' and '.join('--' + name for name in given)}")
    sources = {path: _source(path, settings) for path in paths}
    out = Path(settings.out or Path("irlens-out") / ("compare-" + "-".join(_names(paths).values()))[:100])
    content = [source.revision if source else _digest(path) for path, source in sources.items()]
    kept = identity(settings, runs=list(_names(paths).values()), content=content)
    with OutputFolder(out, "compare", kept, store=store_of(settings, out), say=say, asked=settings) as folder:
        if folder.finished:
            return out, finished.table(out / "values.csv"), finished.table(out / "tests.csv")
        each = _per_query(sources, settings, out, say)
        values, tests = _tested(each, settings)
        files.write_parquet(each, out / "per_query.parquet")
        files.write_csv(values, out / "values.csv")
        files.write_csv(tests, out / "tests.csv")
        files.write_text(markdown(values, tests), out / "compare.md")
        files.write_text(latex(values), out / "compare.tex")
        folder.note(systems=values["run"].drop_duplicates().tolist(), queries=int(each["query_id"].nunique()))
    return out, values, tests


def _paths(settings: Compare) -> list[Path]:
    found = [Path(name).expanduser() for name in settings.runs or ()]
    if not found:
        raise UserError("compare: name two or more runs or result folders")
    for path in found:
        if not path.exists():
            raise UserError(f"{path}: no such run or folder")
    if len({path.resolve() for path in found}) < len(found):
        raise UserError("compare: name each run once")
    return found


def _names(paths: list[Path]) -> dict[Path, str]:
    """What each is called: its folder, with as much above it as tells them apart."""
    parts = {path: path.resolve().with_suffix("").parts if path.is_file() else path.resolve().parts for path in paths}
    for depth in range(1, max(map(len, parts.values())) + 1):
        names = {path: "/".join(some[-depth:]) for path, some in parts.items()}
        if len(set(names.values())) == len(names):
            return {path: name.replace("/", "-") if depth > 1 else name for path, name in names.items()}
    raise UserError("compare: name each run once")


# -- what is compared ----------------------------------------------------------------------------------------------


def _values_of(path: Path) -> Path | None:
    """The values per query of a folder without a run."""
    if not path.is_dir() or (path / "run.parquet").is_file():
        return None
    return next((path / name for name in VALUES if (path / name).is_file()), None)


def _source(path: Path, settings: Compare) -> runs.Source | None:
    """The run at `path`; None for a folder of values."""
    if _values_of(path):
        return None
    return runs.read(str(path), settings.dataset, settings.split, settings.verifier)


def _digest(path: Path) -> str:
    from irlens.tasks import contract

    return contract.digest(_values_of(path))


def _per_query(sources: dict[Path, runs.Source | None], settings: Compare, out: Path, say: Say) -> pd.DataFrame:
    """run, query_id, measure, value of every system, of the measures and the queries that all have."""
    names = _names(list(sources))
    judged = {path: _judged(source, names[path], settings, out, say) for path, source in sources.items() if source}
    if not (settings.qrels or settings.verifier or settings.reward):
        by = {names[p]: s.manifest.get("settings", {}).get("judged_by") for p, s in sources.items() if s}
        if len(set(by.values())) > 1:
            told = ", ".join(f"{name} by {what or 'what lies beside it'}" for name, what in by.items())
            say(f"judged in other ways: {told}; --verifier NAME judges all alike")
    wanted = settings.measures or _measures([(sources[path].run, qrels) for path, qrels in judged.items()])
    parts, texts = [], _by_text(sources)
    if texts:
        say("the runs name their prompts in other ways: joined by their text")
    for path, source in sources.items():
        found = _stored(path) if source is None else _measured(source.run, judged[path], wanted)
        found = found.assign(query_id=found["query_id"].replace(texts.get(path, {})))
        several = found["run"].nunique() > 1
        parts.append(found.assign(run=names[path] + (": " + found["run"].astype(str) if several else "")))
    each = concat(parts)
    if settings.measures and not judged:
        each = each[each["measure"].isin(settings.measures.split())]
    count = each["run"].nunique()
    if count < 2:
        raise UserError(f"compare: needs two systems or more, got {count}")
    each = each[each.groupby("measure")["run"].transform("nunique") == count]
    if each.empty:
        raise UserError("compare: the systems have no measure in common")
    asked = each["query_id"].nunique()
    each = each[each.groupby(["measure", "query_id"])["run"].transform("nunique") == count]
    if each.empty:
        raise UserError("compare: the systems have no prompt in common; a paired test needs the same ones")
    if (left := asked - each["query_id"].nunique()) > 0:
        say(f"{each['query_id'].nunique():,} prompts that all have; {left:,} that some lack are left out")
    return each.reset_index(drop=True)


def _by_text(sources: dict[Path, runs.Source | None]) -> dict[Path, dict[str, str]]:
    """Path → query_id → one made of the prompt's text, where no identifier is in all runs and all tell their prompts."""
    from irlens.tables import query_id_of

    found = [source.run for source in sources.values() if source]
    apart = found and not set.intersection(*(set(run["query_id"]) for run in found))
    if not apart or len(found) < len(sources) or not all("query" in run.columns for run in found):
        return {}
    asked = {path: source.run.drop_duplicates("query_id") for path, source in sources.items()}
    return {path: dict(zip(rows["query_id"], rows["query"].map(query_id_of))) for path, rows in asked.items()}


def _stored(path: Path) -> pd.DataFrame:
    """run, query_id, measure, value of a folder that an earlier command measured."""
    import pandas as pd

    file = checksums.trusted(_values_of(path))
    found = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype={"query_id": str})
    if missing := {"query_id", "measure", "value"} - set(found.columns):
        raise UserError(f"{file}: no values per query; it has no column {sorted(missing)[0]}")
    about = [c for c in ("run", "tag", "temperature") if c in found.columns and found[c].nunique() > 1]
    label = found[about].astype(str).agg(", ".join, axis=1) if about else "run"
    if "cutoff" in found.columns:  # best of N: "best-of-N" at N
        exact = found["measure"].astype(str).str.removesuffix("N") + found["cutoff"].astype(str)
        found = found.assign(measure=found["measure"].where(~found["measure"].str.endswith("-N"), exact))
    return found.assign(run=label)[["run", "query_id", "measure", "value"]]


def _measured(run: pd.DataFrame, qrels: pd.DataFrame, wanted: str) -> pd.DataFrame:
    import irlens.measure

    found = irlens.measure(run, qrels[qrels["query_id"].isin(run["query_id"])], wanted).per_query
    heat = found["temperature"] if "temperature" in found.columns else None
    several = heat is not None and heat.nunique() > 1 and found["run"].nunique() == 1
    label = [f"T = {t:g}" for t in heat] if several else found["run"]
    return found.assign(run=label)[["run", "query_id", "measure", "value"]]


def _judged(source: runs.Source, name: str, settings: Compare, out: Path, say: Say) -> pd.DataFrame:
    """The judgements of a run: by the judge that was asked for, else what lies beside it."""
    if settings.verifier:
        return source.judge(source.run)
    if not settings.reward:
        return runs.qrels_of(source, settings.qrels)[0]
    from irlens.rerank import judges

    judge = judges.of_reward(settings.reward, source.task.instruction, say=say)
    if judge.relative:
        raise UserError(
            f"--reward {settings.reward}: its scores hold within one list, so runs cannot be compared by them"
        )
    run = source.run if "tag" in source.run.columns else source.run.assign(tag="run")
    return judge.grade(run, source.task.topics, out / "scores" / name)


def _measures(judged: list[tuple[pd.DataFrame, pd.DataFrame]]) -> str:
    """Of draws Pass@1 and Pass@N (Reward@N of grades that are no verdicts); of rankings nDCG@10, RR and Success@10."""
    from irlens.measure import best_of_n

    if not judged:
        return ""
    if not all("draw" in run.columns for run, _ in judged):
        return "nDCG@10 RR Success@10"
    kind = "Pass" if all(qrels["relevance"].isin((0, 1)).all() for _, qrels in judged) else "Reward"
    most = min(best_of_n.fewest(run) for run, _ in judged)
    return f"{kind}@1" + (f" {kind}@{most}" if most > 1 else "")


# -- tests and tables ----------------------------------------------------------------------------------------------


def _tested(each: pd.DataFrame, settings: Compare) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(values with their intervals and groups, tests)."""
    import pandas as pd

    from irlens.measure import groups, results, stats

    tests = results.compare(each, seed=settings.seed)
    rows = []
    for measure, part in each.groupby("measure", sort=False):
        means = part.groupby("run", sort=False)["value"].mean().sort_values(ascending=False, kind="stable")
        of = groups.letters(tests[tests["measure"] == measure], list(means.index))
        for run, value in means.items():
            some = part[part["run"] == run]["value"].to_numpy(dtype=float)
            low, high = stats.mean_interval(some)
            row = {"measure": measure, "run": run, "value": value, "low": low, "high": high, "n": len(some)}
            rows.append(row | {"group": of[run]})
    return pd.DataFrame(rows), tests


HEAD = ("measure", "system", "value", "95 % interval", "n", "group")


def _cells(values: pd.DataFrame) -> list[tuple[str, ...]]:
    return [
        (row.measure, row.run, f"{row.value:.3f}", f"[{row.low:.3f}, {row.high:.3f}]", f"{row.n:,}", row.group)
        for row in values.itertuples()
    ]


def markdown(values: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Both tables, with what they mean."""
    head = ["measure", "before", "after", "difference", "95 % interval", "p (Holm)", "d", "n"]
    pairs = [
        (
            row.measure,
            row.before,
            row.after,
            f"{row.difference:+.3f}",
            f"[{row.low:+.3f}, {row.high:+.3f}]",
            f"{row.p_holm:.4f}",
            f"{row.effect:+.2f}",
            f"{row.n:,}",
        )
        for row in tests.itertuples()
    ]
    said = "Systems that share a letter cannot be told apart (paired randomisation test, Holm over all rows, 0.05)."
    return "\n\n".join([_table(HEAD, _cells(values)), said, _table(head, pairs)]) + "\n"


def _table(head, rows) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def latex(values: pd.DataFrame) -> str:
    """The values as a LaTeX table (package booktabs), groups as superscripts."""
    rows = [f"{_tex(m)} & {_tex(s)} & ${v}^{{{g}}}$ & {_tex(i)} & {n} \\\\" for m, s, v, i, n, g in _cells(values)]
    head = " & ".join(_tex(name) for name in HEAD[:-1]) + r" \\"
    return "\n".join(
        [r"\begin{tabular}{llrrr}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""]
    )


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: "\\" + c for c in "&%$#_{}"
}


def _tex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(TEX.get(letter, letter) for letter in text)

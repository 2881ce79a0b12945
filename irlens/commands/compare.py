"""Stage `compare`: several systems against each other, by paired tests and win rates over the prompts that all have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import identity
from irlens.base.progress import silent
from irlens.commands import competing, finished, runs
from irlens.commands.compare_pages import latex, markdown
from irlens.commands.drawing import store_of
from irlens.commands.exchange import Compare
from irlens.commands.folder import OutputFolder
from irlens.commands.systems import OF_DRAWS, System, given, judges_in, parts_of, stored
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.competing import Grader
    from irlens.rerank.reranker import Scoring


def compare(settings: Compare, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Draws where models are named, measures and tests; returns the folder, the values (measure, run, against, value, se,
    low, high, n, group) and the tests (every pair, or each and the baseline).

    The folder holds values.csv, tests.csv (Holm over all), per_query.parquet or preferences.parquet or both, compare.md,
    compare.tex, the draws of models in draws/, and the manifest. Systems of one group cannot be told apart
    (`measure.groups`). Raises UserError: fewer than two systems, no prompt or no measure that all have, judgements that
    are missing, more than one judge.
    """
    if len(who := judges_in(settings)) > 1:
        raise UserError(f"compare: one judge, not {' and '.join('--' + name for name in who)}")
    competing.check(settings)
    systems, judge = given(competing.drawing_alone(settings), say), competing.judge_of(settings)
    _check(systems, judge, settings)
    out = Path(settings.out or Path("irlens-out") / ("compare-" + "-".join(one.name for one in systems))[:100])
    grader = competing.reward_of(settings, out, say)
    kept, growing = _kept(settings, systems, judge, grader), ("n",)
    with OutputFolder(out, "compare", kept, growing, store_of(settings, out), say, settings) as folder:
        if folder.finished:
            return out, _values_in(out), finished.table(out / "tests.csv")
        drawn = [one.drawn(settings, out / "draws", say) for one in systems]
        names = _by_text(drawn, say)
        if judge:
            asked = {one.name: _named(competing.asked_in(one.source), names.get(one.name)) for one in drawn}
            each, prefer = None, competing.preferred(judge, _texts(asked, say), settings, out / "scores", say)
        else:
            each, prefer = _measured(drawn, names, grader, settings, say)
        values, tests = _tested(each, prefer, settings)
        _write(out, values, tests, each, prefer, settings.baseline)
        queries = (prefer if each is None else each)["query_id"].nunique()
        refused = sum(map(bool, competing.refused(prefer)))
        if refused:
            folder.asked = None  # those are asked again at the next start
        told = {"refused": refused} if judge else {}
        folder.note(systems=values["run"].drop_duplicates().tolist(), queries=int(queries), **told)
    return out, values, tests


def _check(systems: list[System], judge: Scoring | None, settings: Compare) -> None:
    """Raises UserError, before a folder is made, for what can be known of systems that are still to draw or be judged: a
    folder of values that a judge of pairs could not read, one system alone, another baseline, another measure."""
    from irlens.measure import groups, measures

    if judge and (bare := [one for one in systems if one.values]):
        raise UserError(f"{bare[0].values.parent}: holds values and no texts, so a judge of pairs cannot read it")
    parts = [stored(one.name, one.values) for one in systems if one.values]
    if settings.measures and len(parts) < len(systems):
        measures.parse(settings.measures)
    if len(parts) == len(systems):
        _shared(concat(parts), settings, False, silent)
    if any(one.policy and len(settings.temperature) > 1 for one in systems):
        return  # a system for each temperature, named by its draws
    labels = list(dict.fromkeys(name for part in parts for name in part["run"]))
    labels += [name for one in systems if one.source for name in parts_of(one.name, one.source.run)]
    labels += [one.name for one in systems if one.policy]
    if len(labels) < 2:
        raise UserError(f"compare: needs two systems or more, got {len(labels)}")
    groups.pairs(labels, settings.baseline)


def _kept(settings: Compare, systems: list[System], judge: Scoring | None, grader: Grader | None) -> dict:
    """What makes the result what it is: options that nobody reads here are no part of it."""
    told = identity(settings, runs=[one.name for one in systems], content=[one.content for one in systems])
    idle = set() if any(one.policy for one in systems) else {*OF_DRAWS}
    idle |= set() if judge else {*competing.OF_JUDGES, "judge"}
    told = {name: value for name, value in told.items() if name not in idle}
    if grader:
        told["reward"] = grader.identity
    return told | ({"judge": judge.identity} if judge else {})


def _values_in(out: Path) -> pd.DataFrame:
    found = finished.table(out / "values.csv")
    return found.assign(**{name: found[name].astype(object).fillna("") for name in ("against", "group")})


def _write(out: Path, values, tests, each, prefer, baseline: str | None) -> None:
    if each is not None:
        files.write_parquet(each, out / "per_query.parquet")
    if prefer is not None:
        files.write_parquet(prefer, out / "preferences.parquet")
    files.write_csv(values, out / "values.csv")
    files.write_csv(tests, out / "tests.csv")
    files.write_text(markdown(values, tests, baseline, competing.refused(prefer)), out / "compare.md")
    files.write_text(latex(values), out / "compare.tex")


# -- the same prompts ----------------------------------------------------------------------------------------------


def _by_text(systems: list[System], say: Say) -> dict[str, dict[str, str]]:
    """System → query_id → one made of the prompt's text, where no identifier is in all runs and all tell their prompts."""
    from irlens.tables import query_id_of

    found = [one.source.run for one in systems if one.source]
    apart = found and not set.intersection(*(set(run["query_id"]) for run in found))
    if not apart or len(found) < len(systems) or not all("query" in run.columns for run in found):
        return {}
    say("the runs name their prompts in other ways: joined by their text")
    asked = {one.name: one.source.run.drop_duplicates("query_id") for one in systems}
    return {name: dict(zip(rows["query_id"], rows["query"].map(query_id_of))) for name, rows in asked.items()}


def _named(frame: pd.DataFrame, names: Mapping[str, str] | None) -> pd.DataFrame:
    """A frame with the names of its queries that all systems share."""
    return frame if names is None else frame.assign(query_id=frame["query_id"].map(names))


def _common(asked: Mapping[str, set[str]], say: Say) -> set[str]:
    """The prompts that all have; those that some lack are counted, and named."""
    common = set.intersection(*asked.values())
    if not common:
        raise UserError("compare: the systems have no prompt in common; a paired test needs the same ones")
    if left := set.union(*asked.values()) - common:
        lacking = {name: sorted(left - some) for name, some in asked.items() if left - some}
        told = "; ".join(
            f"{name} lacks {len(some):,}: {', '.join(some[:3])}" + (", …" if len(some) > 3 else "")
            for name, some in lacking.items()
        )
        say(f"{len(common):,} prompts that all have; {len(left):,} that some lack are left out ({told})")
    return common


def _texts(by_name: Mapping[str, pd.DataFrame], say: Say) -> dict[str, pd.DataFrame]:
    """Label → rows of every system over the prompts that all have."""
    found = {label: rows for name, run in by_name.items() for label, rows in parts_of(name, run).items()}
    common = _common({label: set(rows["query_id"]) for label, rows in found.items()}, say)
    return {label: rows[rows["query_id"].isin(common)] for label, rows in found.items()}


# -- what each is worth --------------------------------------------------------------------------------------------


def _measured(
    systems: list[System], names: Mapping[str, dict], grader: Grader | None, settings: Compare, say: Say
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """(run, query_id, measure, value of every system, preferences between their texts by a reward model)."""
    from irlens.measure import groups, wins
    from irlens.rerank.scoring import grades_of

    judged = {one.name: _judged(one, grader, settings) for one in systems if one.source}
    if not judges_in(settings):
        by = {o.name: o.source.manifest.get("settings", {}).get("judged_by") for o in systems if o.source}
        if len(set(by.values())) > 1:
            told = ", ".join(f"{name} by {what or 'what lies beside it'}" for name, what in by.items())
            say(f"judged in other ways: {told}; --verifier NAME judges all alike")
    sources = {one.name: one.source.run for one in systems if one.source}
    wanted = settings.measures or _measures([(sources[name], qrels) for name, qrels in judged.items()])
    parts, scored = [], {}
    for one in systems:
        if one.values:
            parts.append(stored(one.name, one.values))
            continue
        run, qrels, called = one.source.run, judged[one.name], names.get(one.name)
        parts += [
            _named(_values(label, rows, qrels, wanted), called) for label, rows in parts_of(one.name, run).items()
        ]
        if grader:
            scored[one.name] = _named(run.assign(reward=grades_of(run, qrels)), called)
    each = _shared(concat(parts), settings, bool(judged), say)
    if not grader or len(scored) < len(systems):
        return each, None
    texts = _texts(scored, silent)  # the same prompts, of which was told
    return each, wins.by_scores(texts, groups.pairs(list(texts), settings.baseline))


def _judged(system: System, grader: Grader | None, settings: Compare) -> pd.DataFrame:
    """The judgements of a run: by the judge that was asked for, else what lies beside it, else the data set's verifier
    for what a model drew here."""
    source = system.source
    if settings.verifier:
        return source.judge(source.run)
    if grader:
        return grader.grade(source, system.name)
    bare = source.judged is None and "reward" not in source.run.columns
    if bare and not settings.qrels and source.manifest.get("command") == "sample" and source.task.verifier:
        return source.judge(source.run)
    return runs.qrels_of(source, settings.qrels)[0]


def _values(label: str, run: pd.DataFrame, qrels: pd.DataFrame, wanted: str) -> pd.DataFrame:
    import irlens.measure

    found = irlens.measure(run, qrels[qrels["query_id"].isin(run["query_id"].unique())], wanted).per_query
    return found.assign(run=label)[["run", "query_id", "measure", "value"]]


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


def _shared(each: pd.DataFrame, settings: Compare, measured: bool, say: Say) -> pd.DataFrame:
    """The values of the measures and the queries that all systems have. Raises UserError where there are none."""
    count = each["run"].nunique()
    if count < 2:
        raise UserError(f"compare: needs two systems or more, got {count}")
    by = each.groupby("measure", sort=False)["run"].nunique()
    common = by.index[by == count].tolist()
    if not common:
        own = each.groupby("run", sort=False)["measure"].unique()
        told = "; ".join(f"{name}: {', '.join(some[:4])}" for name, some in own.items())
        raise UserError(f"compare: the systems have no measure in common ({told})")
    if settings.measures and not measured:
        for name in settings.measures.split():
            if name not in common:
                raise UserError(f"--measures: not all systems have {name}; {did_you_mean(name, common)}")
        common = settings.measures.split()
    each, parts, told = each[each["measure"].isin(common)], [], set()
    for measure, some in each.groupby("measure", sort=False):  # one may be defined for fewer queries than another

        def once(line: str, measure=measure) -> None:
            if line not in told:
                say(line if not told else f"{measure}: {line}")
            told.add(line)

        keep = _common(some.groupby("run", sort=False)["query_id"].agg(set).to_dict(), once)
        parts.append(some[some["query_id"].isin(keep)])
    return concat(parts)


# -- tests and tables ----------------------------------------------------------------------------------------------


def _tested(
    each: pd.DataFrame | None, prefer: pd.DataFrame | None, settings: Compare
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(values with their intervals and groups, tests)."""
    import pandas as pd

    from irlens.measure import results, wins

    given = [frame for frame in (each, prefer) if frame is not None]
    tests = results.compare(*given, seed=settings.seed, baseline=settings.baseline)
    parts = [] if each is None else [part for _, part in each.groupby("measure", sort=False)]
    if prefer is not None and not settings.baseline:
        parts.append(_over_others(prefer))
    rows = [row for part in parts for row in _rows(part, tests, settings.baseline)]
    if prefer is None:
        return pd.DataFrame(rows), tests
    differ = _told_apart(tests[tests["measure"] == wins.RATE]) if settings.baseline else set()
    rates = wins.win_rates(prefer, settings.seed)
    rates["group"] = [
        "*" if m == wins.RATE and name in differ else "" for m, name in zip(rates["measure"], rates["run"])
    ]
    return concat([pd.DataFrame(rows, columns=rates.columns), rates]) if rows else rates, tests


def _over_others(prefer: pd.DataFrame) -> pd.DataFrame:
    """run, query_id, measure, value: each system's win rate over all the others."""
    from irlens.measure import wins

    after = prefer[["query_id", "after", "preference"]].rename(columns={"after": "run", "preference": "value"})
    before = prefer[["query_id", "before"]].rename(columns={"before": "run"}).assign(value=1 - prefer["preference"])
    found = concat([before, after]).groupby(["run", "query_id"], sort=False, as_index=False)["value"].mean()
    return found.assign(measure=wins.RATE)


def _told_apart(tests: pd.DataFrame) -> set[str]:
    """The systems that differ from the baseline."""
    return set(tests[tests["p_holm"] < 0.05]["after"])


def _rows(part: pd.DataFrame, tests: pd.DataFrame, baseline: str | None) -> list[dict]:
    """The values of one measure, best first."""
    import numpy as np

    from irlens.measure import groups, stats

    measure = part["measure"].iloc[0]
    means = part.groupby("run", sort=False)["value"].mean().sort_values(ascending=False, kind="stable")
    own = tests[tests["measure"] == measure]
    of = dict.fromkeys(_told_apart(own), "*") if baseline else groups.letters(own, list(means.index))
    rows = []
    for run, value in means.items():
        some = part[part["run"] == run]["value"].to_numpy(dtype=float)
        low, high = stats.mean_interval(some)
        error = some.std(ddof=1) / np.sqrt(len(some)) if len(some) > 1 else np.nan
        row = {"measure": measure, "run": run, "against": "", "value": value, "se": error, "low": low, "high": high}
        rows.append(row | {"n": len(some), "group": of.get(run, "")})
    return rows

"""What `compare` was given: runs, folders of values, and models that draw first; what each is called, and what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import checksums
from irlens.base.errors import UserError
from irlens.base.options import flags_of
from irlens.base.untrusted import file_name, file_names
from irlens.commands import drawing, runs
from irlens.commands.exchange import Compare
from irlens.commands.settings import Sample
from irlens.models import catalog
from irlens.retrieve.policy import Policy, Say

if TYPE_CHECKING:
    import pandas as pd

VALUES = ("per_query.parquet", "per_query.csv")  # of a folder without a run: what `recall`, `evaluate`, … leave
OF_DRAWS = ("limit", "n", "temperature", "max_tokens", "max_prompt_length", "engine", "base_url", "served_model", "chat",
            "messages_as", "engine_args")  # fmt: skip


@dataclass(frozen=True)
class System:
    """One that is compared. Exactly one is there: values (a file), source (a run), policy (with the draws to make)."""

    name: str
    values: Path | None = None
    source: runs.Source | None = None
    policy: Policy | None = None
    draws: Sample | None = None

    @property
    def content(self) -> str | dict:
        """What a comparison depends on."""
        from irlens.tasks import contract

        if self.policy:
            told = drawing.identity(self.draws, self.policy)
            return {key: value for key, value in told.items() if key not in ("n", "model")}
        return self.source.revision if self.source else contract.digest(self.values)

    def drawn(self, settings: Compare, folder: Path, say: Say) -> System:
        """The system with its run, drawn into `folder` if it is a policy."""
        from irlens.commands.sample import drawn

        if self.policy is None:
            return self
        say(f"{self.name}: draws")
        store = drawing.store_of(settings, folder.parent)  # that of the comparison, not one beside the draws
        told = replace(
            self.draws, out=str(folder / file_name(self.name)), store="none" if store is None else str(store)
        )
        where, _ = drawn(told, self.policy, say)
        return System(self.name, source=runs.read(str(where), None, None, settings.verifier, settings.thought))


def judges_in(settings: Compare) -> list[str]:
    """The options that say who judges."""
    return [name for name in ("qrels", "verifier", "reward", "judge") if getattr(settings, name)]


def given(settings: Compare, say: Say) -> list[System]:
    """The systems in their order, each ready, so that what can be refused is before anything is made.

    Raises UserError: none, one that is given twice or is nothing known, a model that cannot be had, options of draws
    where no model is to draw.
    """
    named = [str(name) for name in settings.runs or ()]
    if not named:
        raise UserError("compare: name two or more runs, result folders or models")
    places = {name: _model(name, settings) or Path(name).expanduser() for name in named}
    models = [name for name, place in places.items() if isinstance(place, str)]
    for name, place in places.items():
        if isinstance(place, Path) and not place.exists():
            raise UserError(f"{name}: no such run or folder, and no model of that name")
    idle = [f for f in fields(Compare) if f.name in OF_DRAWS and getattr(settings, f.name) != f.default]
    if idle and not models:
        raise UserError(f"{flags_of(idle)}: for models that draw, and only runs are given")
    called = _names([Path(name).expanduser() for name in places])
    if len(named) > len(places) or len(set(called.values())) < len(named):
        raise UserError("compare: name each run once")
    return [_system(called[Path(name).expanduser()], place, settings, say) for name, place in places.items()]


def _model(name: str, settings: Compare) -> str | None:
    """The model that a name means; None for what is, or looks like, a path of results."""
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "run.parquet").is_file():
        if (path / "chosen.json").is_file():
            return _trained(path)
        return str(path) if (path / "config.json").is_file() else None
    if path.exists():
        return None
    hub = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name.partition("/")[0]).exists()
    return name if hub or name in catalog.MODELS or settings.engine == "openai" else None


def _trained(folder: Path) -> str:
    """The policy that a training chose; a folder that was moved has it inside."""
    try:
        told = json.loads((folder / "chosen.json").read_text(encoding="utf-8"))
        inside, named = folder / f"iteration-{told['iteration']}" / "model", str(told["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'chosen.json'}: does not say which policy was chosen ({error})") from error
    return str(inside) if inside.is_dir() else named


def _names(places: list[Path]) -> dict[Path, str]:
    """What each is called: its folder, with as much above it as tells them apart."""
    parts = {place: _parts(place) for place in places}
    for depth in range(1, max(map(len, parts.values())) + 1):
        names = {place: "-".join(part.strip("/") for part in some[-depth:]) for place, some in parts.items()}
        if len(set(names.values())) == len(names):
            apart = file_names(names.values(), str)  # a folder each, whatever the case
            return {place: apart[name] for place, name in names.items()}
    raise UserError("compare: name each run once")


def _parts(place: Path) -> tuple[str, ...]:
    if not place.exists():
        return place.parts  # a model's name
    whole = place.resolve().with_suffix("") if place.is_file() else place.resolve()
    return whole.parts[:-1] if whole.name == "model" and len(whole.parts) > 1 else whole.parts


def _system(name: str, place: Path | str, settings: Compare, say: Say) -> System:
    if isinstance(place, str):
        return _policy(name, place, settings, say)
    if (values := values_in(place, bool(judges_in(settings)))) is not None:
        return System(name, values=values)
    told = (settings.dataset, settings.split, settings.verifier, settings.thought, settings.columns)
    return System(name, source=runs.read(str(place), *told))


def _policy(name: str, model: str, settings: Compare, say: Say) -> System:
    """A model with what it is to draw, everything but its weights ready. Raises UserError if nothing could judge it."""
    shared = {f.name: getattr(settings, f.name) for f in fields(Sample) if f.name not in ("model", "out")}
    draws = Sample(model=model, **shared)
    drawing.check_draws(draws)
    policy = drawing.load_policy(draws, settings.split, settings.limit, say, verified=False)
    if settings.verifier:
        drawing.judged_by(policy.task, settings.verifier)
    elif not judges_in(settings) and not policy.task.verifier:
        raise UserError(
            f"data set {policy.task.name!r} has no verifier, so the draws of {name} cannot be judged; give --verifier, "
            "--reward or --judge"
        )
    return System(name, policy=policy, draws=draws)


def values_in(path: Path, judged: bool = False) -> Path | None:
    """The values per query of a folder without a run, or of `recall`'s, whose judgements are several; not of what is to
    be `judged` anew."""
    if not path.is_dir():
        return None
    if (path / "run.parquet").is_file() and (judged or not (path / "qrels-gold.parquet").is_file()):
        return None
    return next((path / name for name in VALUES if (path / name).is_file()), None)


# -- the parts of one, each a system of its own --------------------------------------------------------------------


def parts_of(name: str, run: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Label → rows: of a run with several tags each tag, and of several temperatures each of these."""
    if "tag" in run.columns and run["tag"].nunique() > 1:
        tags = run.groupby(run["tag"].astype(str), sort=False)
        return {label: rows for tag, some in tags for label, rows in parts_of(f"{name}: {tag}", some).items()}
    if "temperature" in run.columns and run["temperature"].nunique() > 1:
        return {f"{name}: T = {heat:g}": rows for heat, rows in run.groupby("temperature", sort=False)}
    return {name: run}


def stored(name: str, file: Path) -> pd.DataFrame:
    """run, query_id, measure, value of a folder that an earlier command measured; several in it are systems each.

    Raises UserError: a column that is missing, a value that is not finite.
    """
    import numpy as np
    import pandas as pd

    checksums.trusted(file)
    found = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype={"query_id": str})
    if missing := {"query_id", "measure", "value"} - set(found.columns):
        raise UserError(f"{file}: no values per query; it has no column {sorted(missing)[0]}")
    bad = ~np.isfinite(pd.to_numeric(found["value"], errors="coerce").to_numpy(dtype=float))
    if bad.any():
        row = found[bad].iloc[0]
        raise UserError(
            f"{file}: {row['measure']} of query_id={row['query_id']} is {row['value']}, not a finite number "
            f"({int(bad.sum()):,} such values)"
        )
    about, apart = [], 1
    for column in (c for c in ("run", "tag", "temperature") if c in found.columns):
        if (count := len(found[[*about, column]].drop_duplicates())) > apart:  # it tells apart what those before do not
            about, apart = [*about, column], count
    labels = found[about].astype(str).agg(", ".join, axis=1) if about else None
    if "cutoff" in found.columns:  # best of N: "best-of-N" at N
        exact = found["measure"].astype(str).str.removesuffix("N") + found["cutoff"].astype(str)
        found = found.assign(measure=found["measure"].where(~found["measure"].str.endswith("-N"), exact))
    return found.assign(run=name if labels is None else f"{name}: " + labels)[["run", "query_id", "measure", "value"]]

"""What `irlens reproduce` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import argument, option
from irlens.commands.settings import _out, _store, _style
from irlens.rerank.options import _max_calls, _price, _yes
from irlens.retrieve.options import devices


@dataclass(frozen=True)
class Reproduce:
    """A recipe, and how to run it."""

    recipe: str | None = argument(None, "A recipe's name, such as fig2b, or a TOML file.")
    preset: str = option("tiny", "tiny (on CPU), paper, or another of --list.", panel="Recipe")
    list_all: bool = option(False, "Show all recipes and what they cost.", "--list", panel="Recipe")
    dry_run: bool = option(False, "Show stages and costs; run and download nothing.", panel="Recipe")
    device_memory: str | None = option(None, "With --dry-run: of a GPU, such as 80GiB.", panel="Recipe")
    rehearse: bool = option(
        False, "Run every step small, with stand-ins, on this CPU; download nothing.", panel="Recipe"
    )
    seeds: tuple[int, ...] | None = option(None, "Run it once for each: 0,1,2,3,4.", panel="Recipe")
    judge: str | None = option(
        None,
        "Of win rates: a judge by name (at --base-url), a reward model or other reranker, a file of annotations. Default: the paper's.",
        panel="Judging",
        first=True,
    )
    template: str | None = option(
        None, "The judge's template. Default: as alpaca-eval's files have it.", panel="Judging"
    )
    max_calls: int = _max_calls()
    yes: bool = _yes()
    price: tuple[float, ...] | None = _price()
    base_url: str | None = option(
        None, "The judge's servers: http://host:8000/v1,…", panel="Engine", free=True, secret=True
    )
    served_model: str | None = option(None, "What the judge's server calls it. Default: its only one.", panel="Engine")
    api_key_env: str | None = option(
        None, "Variable with the server's key. Default: OPENAI_API_KEY.", panel="Engine", free=True
    )
    mixeval: str | None = option(None, "Folder of MixEval, for the tables that have it.", panel="Data")
    redraw: str | None = option(
        None, "Draw and judge again from an earlier per_problem.parquet; run nothing.", panel="Recipe"
    )
    style: str = _style()
    jobs: int | None = option(
        None, "Seeds and arms at once. Default: one per core; with a GPU or --devices one.", panel="Engine", free=True
    )
    devices: str | None = devices()
    device_kind: str = option(
        "H100-80GB", "What --rehearse reckons with: A100-80GB, L40S-48GB, …", panel="Engine", free=True
    )
    out: str | None = _out()
    store: str | None = _store()

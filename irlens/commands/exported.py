"""What each iteration of a training leaves for other trainers: its lists and its judged draws in their forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irlens.base.options import one_of
from irlens.negatives import export

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from irlens.commands.validation import Job
    from irlens.models.chat import Prompt

FORMS = ("trl", "kto", "sentence-transformers")


def forms(asked: str | None) -> list[str]:
    """The forms named by commas. Raises UserError for one that is not known."""
    found = [name.strip() for name in asked.split(",")] if asked is not None else []
    for name in found:
        one_of(FORMS, export=name)
    return list(dict.fromkeys(found))


def write(job: Job, s: int, lists: pd.DataFrame, prompts: Sequence[Prompt]) -> None:
    """Writes iteration-s/export/FORM.jsonl of the lists, and FORM-run.jsonl of the judged draws, where there are any;
    those that are there already stay. A line says what a form leaves out.

    KTO's labels are a verifier's: a reward model's draws have none, so of them there is no kto-run.jsonl.
    """
    import pandas as pd

    folder = job.out / f"iteration-{s}"
    chat = getattr(job.policy.tokenizer, "chat_template", None)
    asked = {p.query_id: list(p.messages) if chat and p.messages else p.text for p in prompts}
    for form in forms(job.settings.export):
        path = folder / "export" / f"{form}.jsonl"
        if not path.is_file():
            rows, left_out = _OF_LISTS[form](lists, asked)
            if left_out:
                job.say(f"iteration {s}: {path.name} leaves out {left_out}")
            export.write_jsonl(rows, path)
        path = folder / "export" / f"{form}-run.jsonl"
        verified = job.judge is not None and not job.judge.is_reward
        if not path.is_file() and (folder / "run.parquet").is_file() and (form != "kto" or verified):
            run, topics = pd.read_parquet(folder / "run.parquet"), job.policy.task.topics
            queries = dict(zip(topics["query_id"], topics["query"]))
            export.write_jsonl(_OF_RUN[form](run, asked, queries), path)


def _kto(lists: pd.DataFrame, prompts: export.Prompts) -> tuple[list[dict], str]:
    rows, both = export.labelled(lists, prompts)
    return rows, f"{both:,} responses that are a positive in one list and a negative in another" if both else ""


def _tuples(lists: pd.DataFrame, prompts: export.Prompts) -> tuple[list[dict], str]:
    rows, few = export.tuples(lists)
    return rows, f"{few:,} lists with fewer negatives than the largest" if few else ""


_OF_LISTS = {"trl": lambda lists, asked: (export.trl(lists, asked), ""), "kto": _kto, "sentence-transformers": _tuples}
_OF_RUN = {
    "trl": lambda run, asked, queries: export.completions(run, asked),
    "kto": lambda run, asked, queries: export.judged(run, asked),
    "sentence-transformers": lambda run, asked, queries: export.scored(run, queries),
}

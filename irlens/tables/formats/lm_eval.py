"""lm-eval's `--log_samples`: samples_TASK_DATE.jsonl, a row per question and filter. Source: lm-eval 0.4, its loggers.

A row is `doc_id, doc, target, arguments, resps, filtered_resps, filter, metrics` and a key per metric. `resps` holds, for
the one request of a question, its `repeats` responses; a metric judges what the filter made of them. So one response is
judged by its metric, of several each whose text is what the filter passed on, and one metric per response where the row
has a list of them. What a filter changed (a regular expression, a vote) judges no response among several.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.tables.formats.draws import About, Draw, Log, answers_of, chat, number

KEYS = "doc_id, doc, arguments, resps, filtered_resps"
FIELDS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
          "target_hash", "schema_version", "sample_len"}  # fmt: skip
FILE = re.compile(r"^samples_(.+?)(?:_\d{4}-\d\d-\d\dT.*)?$")
QUESTION = ("question", "problem", "prompt", "instruction", "query")
WITH_MORE = {"context", "passage", "article", "story", "document", "choices"}  # a doc that asks more than its question


def fits(row: dict) -> bool:
    """Whether a row is one of lm-eval's samples."""
    return row.keys() >= {"doc_id", "doc", "resps"}


def read(rows: Iterable[tuple[str, dict]], about: About) -> Log:
    """Raises UserError, naming the line: no `resps`, log-likelihoods instead of responses, a question twice."""
    named = FILE.match(about.path.name.split(".json")[0])
    task = named[1] if named else about.path.name.split(".")[0]
    byid: dict[str, list[tuple[str, dict]]] = defaultdict(list)
    for where, row in rows:
        if not fits(row):
            raise UserError(f"{where}: a sample of lm-eval needs {KEYS}; found: {', '.join(row)}")
        byid[str(row["doc_id"])].append((where, row))
    log, sums = Log([], task=task), dict[str, list[float]]()
    for doc_id, same in byid.items():
        where, row = same[0]
        filters = [str(one.get("filter", "none")) for _, one in same]
        if len(set(filters)) < len(filters):
            raise UserError(f"{same[-1][0]}: doc_id {doc_id} twice with the filter {filters[-1]!r}")
        texts = _texts(row.get("resps"), where)
        verdicts = _verdicts([one for _, one in same], texts, sums)
        query, messages, temperature = _asked(row, where)
        for text, judged in zip(texts, verdicts):
            log.draws.append(
                Draw(
                    where,
                    text,
                    query,
                    f"{task}-{doc_id}",
                    messages,
                    answers_of(row.get("target")),
                    judged,
                    temperature,
                )
            )
    log.reported = {name: sum(values) / len(values) for name, values in sums.items()}
    return log


def _texts(resps, where: str) -> list[str]:
    """The responses of the one request of a row."""
    requests = resps if isinstance(resps, list) and resps else [None]
    found = requests[0] if isinstance(requests[0], list) else requests
    if len(requests) > 1 or not all(isinstance(text, str) for text in found):
        raise UserError(
            f"{where}: resps hold no responses but {resps!r:.60}: the task scores choices by log-likelihood; only tasks "
            "that generate (generate_until) can be imported"
        )
    return [str(text) for text in found]


def _verdicts(rows: list[dict], texts: list[str], sums: dict[str, list[float]]) -> list[dict[str, float]]:
    """[responses] {metric,filter: number}; the values of each row are added to `sums`."""
    out: list[dict[str, float]] = [{} for _ in texts]
    for row in rows:
        passed = row.get("filtered_resps")
        passed = passed[0] if isinstance(passed, list) and len(passed) == 1 else passed
        passed = passed[0] if isinstance(passed, list) and len(passed) == 1 else passed
        names = row.get("metrics")
        for metric in map(
            str, names if isinstance(names, list) and names else [key for key in row if key not in FIELDS]
        ):
            name = f"{metric},{row['filter']}" if "filter" in row else str(metric)
            value = row.get(metric)
            listed = [grade for one in value if (grade := number(one)) is not None] if isinstance(value, list) else []
            each: list[float | None]
            if listed and len(listed) == len(texts):
                each = [*listed]
                sums.setdefault(name, []).append(sum(listed) / len(listed))
            elif (single := number(value)) is not None:
                sums.setdefault(name, []).append(single)
                each = [single if len(texts) == 1 or text == passed else None for text in texts]
            else:
                continue
            for judged, one in zip(out, each):
                if one is not None:
                    judged[name] = one
    return out


def _asked(row: dict, where: str) -> tuple[str | None, list[dict] | None, float | None]:
    """(query, messages, temperature): the document's question where that is all it asks, else what the model read."""
    first = row.get("arguments")
    if isinstance(first, dict):
        first = first.get("gen_args_0")
    elif isinstance(first, list):
        first = next(iter(first), None)
    if isinstance(first, dict):
        first = [first.get("arg_0"), first.get("arg_1")]
    parts = [*(first if isinstance(first, list) else ()), None, None]
    context, options = parts[0], parts[1] if isinstance(parts[1], dict) else {}
    greedy = options.get("do_sample") is False
    temperature = 0.0 if greedy else number(options.get("temperature"))
    doc = row["doc"] if isinstance(row["doc"], dict) else {}
    key = next((key for key in QUESTION if isinstance(doc.get(key), str) and doc[key].strip()), None)
    if key and not WITH_MORE & doc.keys():
        return doc[key], None, temperature
    context = context[0] if isinstance(context, list) and len(context) == 1 else context
    if isinstance(context, str) and context.lstrip().startswith("[{"):
        try:
            return *chat(jsons.loads(context), where), temperature
        except json.JSONDecodeError:
            pass  # a text that begins like a list
    return context if isinstance(context, str) else None, None, temperature

"""One's own JSON lines (or a JSON list, or Parquet): `prompt, response[, score]`, several responses of a prompt in a list.

| what       | key                                                                                     |
|------------|-----------------------------------------------------------------------------------------|
| prompt     | prompt, query, question, problem, instruction: a text or messages; or messages          |
| responses  | response, completion, text, output, generation: a text; responses, completions, outputs: a list |
| judgements | score, reward, correct, label, grade: a number or truth value, a list for several responses |
| more       | query_id or id, answer or answers, temperature, finish_reason, model                    |
"""

from __future__ import annotations

from collections.abc import Iterable

from irlens.base.errors import UserError
from irlens.tables.formats.draws import About, Draw, Log, answers_of, number, prompt, response

KEYS = "prompt, response (or responses), and score"
PROMPT = ("prompt", "query", "question", "problem", "instruction", "messages")
ONE = ("response", "completion", "text", "output", "generation")
SEVERAL = ("responses", "completions", "outputs", "generations")
SCORE = ("score", "reward", "correct", "label", "grade", "scores", "rewards")


def fits(row: dict) -> bool:
    """Whether a row has a prompt and a response."""
    return bool(row.keys() & {*PROMPT}) and bool(row.keys() & {*ONE, *SEVERAL})


def read(rows: Iterable[tuple[str, dict]], about: About) -> Log:
    """Raises UserError, naming the line: a key that is missing, scores of another number than responses."""
    log, models = Log([]), set()
    for where, row in rows:
        if not fits(row):
            raise UserError(f"{where}: a row needs {KEYS}; found: {', '.join(row) or 'nothing'}")
        query, messages = prompt(row[next(key for key in PROMPT if key in row)], where)
        key = next(key for key in (*SEVERAL, *ONE) if key in row)
        many = isinstance(row[key], list) and not (key in ONE and _is_message(row[key]))
        texts = row[key] if many else [row[key]]
        identifier = next((str(row[name]) for name in ("query_id", "id") if row.get(name) is not None), None)
        models.add(None if row.get("model") is None else str(row["model"]))
        for text, judged in zip(texts, _verdicts(row, len(texts), many, where)):
            log.draws.append(
                Draw(
                    where,
                    response(text, where),
                    query,
                    identifier,
                    messages,
                    answers_of(row.get("answers", row.get("answer"))),
                    judged,
                    number(row.get("temperature")),
                    None if row.get("finish_reason") is None else str(row["finish_reason"]),
                )
            )
    log.model = models.pop() if len(models) == 1 else None
    return log


def _is_message(value: list) -> bool:
    """Whether a list is one response as chat messages."""
    return bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _verdicts(row: dict, count: int, many: bool, where: str) -> list[dict[str, float]]:
    """[responses] the scores of each."""
    out: list[dict[str, float]] = [{} for _ in range(count)]
    for name in (key for key in SCORE if row.get(key) is not None):
        values = row[name] if isinstance(row[name], list) else [row[name]]
        if len(values) != count:
            raise UserError(f"{where}: {name} has {len(values)} entries for {count} responses")
        for judged, value in zip(out, values):
            if (found := number(value)) is None:
                raise UserError(f"{where}: {name} must be a finite number or a truth value, got {value!r:.60}")
            judged[name] = found
    return out

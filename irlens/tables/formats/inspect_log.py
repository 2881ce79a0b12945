"""inspect_ai's logs, `.json` and `.eval` (a zip of JSON): a sample per question and epoch. Source: inspect_ai, EvalLog.

A sample is `id, epoch, input, target, output, scores`; a score is `value`: C, I, P, N, a number, or several by name. Where
inspect_ai is installed its own reader reads the file, and so older versions of it.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.tables.formats.draws import About, Draw, Log, answers_of, chat, count, number, objects, part, text_of

KEYS = "eval, samples"
LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # as inspect_ai's value_to_float has them
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
ZSTD = 93  # a zip's method of compression, which Python reads from 3.14 on
LOCAL_HEADER = 30  # bytes before the name of an entry


def fits(row: dict) -> bool:
    """Whether an object is a log of inspect_ai's."""
    return isinstance(row.get("eval"), dict) and "task" in row["eval"]


def read(rows: Iterable[tuple[str, dict]], about: About) -> Log:
    """Raises UserError: no samples, a sample without an output, a question twice in an epoch."""
    where, row = next(iter(rows))
    if about.path.suffix != ".eval" and (own := by_own_reader(about.path)):
        row = own
    if not fits(row) or not isinstance(row.get("samples"), list):
        raise UserError(f"{where}: a log of inspect_ai needs {KEYS} (eval with its task); found: {', '.join(row)}")
    log = Log([], row["eval"].get("model"), row["eval"].get("task"))
    temperature = number(part(row["eval"], "model_generate_config", dict, where).get("temperature"))
    if temperature is None:
        temperature = number(part(part(row, "plan", dict, where), "config", dict, where).get("temperature"))
    seen: dict[tuple, int] = {}
    for i, sample in enumerate(objects(row["samples"], "samples", where)):
        place = f"{where}: sample {i}"
        key = (str(sample.get("id")), str(sample.get("epoch", 1)))
        if seen.setdefault(key, i) != i:
            raise UserError(f"{place}: id {key[0]!r}, epoch {key[1]} again, as in sample {seen[key]}")
        if sample.get("error"):
            log.left_out["samples that failed"] += 1
            continue
        log.draws.append(_draw(sample, place, temperature))
    log.reported = _reported(row, where)
    return log


def _draw(sample: dict, where: str, temperature: float | None) -> Draw:
    if not sample.keys() >= {"id", "input", "output"}:
        raise UserError(f"{where}: a sample needs id, input, output; found: {', '.join(sample)}")
    output, notes = part(sample, "output", dict, where), part(sample, "attachments", dict, where)
    choice = next(iter(objects(part(output, "choices", list, where), "choices", where)), {})
    text = output.get("completion")
    text = part(choice, "message", dict, where).get("content") if text is None else text
    asked = sample["input"]
    query, messages = chat(asked, where) if isinstance(asked, list) else (text_of(asked, where), None)
    return Draw(
        where,
        _attached(text_of(text, where), notes),
        _attached(query, notes),
        str(sample["id"]),
        messages,
        answers_of(sample.get("target")),
        _verdicts(part(sample, "scores", dict, where)),
        temperature,
        choice.get("stop_reason"),
        count(part(output, "usage", dict, where).get("output_tokens")),
    )


def _attached(text: str, attachments: dict[str, str]) -> str:
    """A text, or what it stands for: long ones are kept once, under their digest."""
    return str(attachments.get(text.removeprefix("attachment://"), text)) if text.startswith("attachment://") else text


def _verdicts(scores: dict) -> dict[str, float]:
    """Scorer → number; of a scorer that gives several "scorer/name"."""
    found: dict[str, float] = {}
    for name, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else None
        several = {f"{name}/{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
        found |= {key: grade for key, one in several.items() if (grade := _grade(one)) is not None}
    return found


def _grade(value) -> float | None:
    if not isinstance(value, str):
        return number(value)
    if value in LETTERS:
        return LETTERS[value]
    try:
        return number(WORDS[value.lower()] if value.lower() in WORDS else float(value))
    except ValueError:
        return None


def _reported(row: dict, where: str) -> dict[str, float]:
    """Scorer → the accuracy (or mean) that the log reports, averaged over epochs."""
    found = {}
    for score in objects(part(part(row, "results", dict, where), "scores", list, where), "scores", where):
        metrics = part(score, "metrics", dict, where)
        metric = part(metrics, "accuracy" if metrics.get("accuracy") else "mean", dict, where)
        if score.get("reducer") in (None, "mean") and (value := number(metric.get("value"))) is not None:
            found[str(score.get("name"))] = value
    return found


# -- files ---------------------------------------------------------------------------------------------------------


def by_own_reader(path: Path) -> dict | None:
    """The log as inspect_ai reads it; None where that is not installed, or not whole."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        return None
    try:
        return read_eval_log(str(path), resolve_attachments=True).model_dump(mode="json")
    except Exception as error:
        raise UserError(f"{path}: inspect_ai cannot read it ({type(error).__name__}: {error!s:.100})") from error


def loaded(path: Path) -> dict:
    """A `.eval` file: the header with its samples. Raises UserError for a file that is no such zip."""
    if own := by_own_reader(path):
        return own
    try:
        with zipfile.ZipFile(path) as file:
            names = {info.filename: info for info in file.infolist()}
            head = next((names[name] for name in ("header.json", "_journal/start.json") if name in names), None)
            if head is None:
                raise UserError(f"{path}: no log of inspect_ai: it holds no header.json")
            log = jsons.loads(_inflated(file, head))
            parts = sorted(name for name in names if name.startswith("samples/") and name.endswith(".json"))
            log["samples"] = [jsons.loads(_inflated(file, names[name])) for name in parts]
    except (OSError, zipfile.BadZipFile, ValueError, struct.error) as error:
        raise UserError(f"{path}: not a readable .eval file ({error})") from error
    log["samples"].sort(key=lambda sample: sample.get("epoch", 1))
    return log


def _inflated(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of an entry; Zstandard's by pyarrow."""
    if info.compress_type != ZSTD:
        return file.read(info)
    import pyarrow

    with open(str(file.filename), "rb") as raw:
        raw.seek(info.header_offset)
        name, extra = struct.unpack("<HH", raw.read(LOCAL_HEADER)[26:30])
        raw.seek(name + extra, 1)
        packed = raw.read(info.compress_size)
    return pyarrow.input_stream(pyarrow.BufferReader(packed), compression="zstd").read()

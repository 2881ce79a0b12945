"""A run and its judgements in the layouts of other tools: lm-eval's samples, JSON lines, and Every Eval Ever's schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from irlens.base.errors import UserError

EVERY_EVAL_EVER = "0.2.2"  # the version of its schemas, of the whole and of the instances


@dataclass(frozen=True)
class Source:
    """What a run's folder says of it: its model and data set, both of them names; who evaluated, and when (Unix seconds)."""

    model: str
    dataset: str
    version: str = "unknown"
    organization: str = "unknown"
    time: int = 0


def _prompts(run: pd.DataFrame, wanted: str) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(query_id, its draws in order, its gold answers). Raises UserError for a run without prompts or texts."""
    for column in ("query", "text"):
        if column not in run.columns:
            raise UserError(f"{wanted} needs the column {column}, which the run has not")
    for query_id, rows in run.sort_values("rank", kind="stable").groupby("query_id", sort=False):
        answers = rows["answers"].iloc[0] if "answers" in rows.columns else None
        yield query_id, rows, [] if answers is None else [str(answer) for answer in answers]


def _chat(rows: pd.DataFrame) -> list[dict] | None:
    """The messages that the draws of a prompt answer, where the run tells them."""
    messages = rows["messages"].iloc[0] if "messages" in rows.columns else None
    return None if messages is None else [dict(message) for message in messages]


def lm_eval(run: pd.DataFrame, grades: pd.Series | None, metric: str = "exact_match") -> list[dict]:
    """Rows as lm-eval's `--log_samples` writes them: one per prompt, all its draws in `resps`, the filter "none".

    grades: of the run's rows; a number under `metric` of one draw, a list of several. `irlens import` reads it back.
    """
    out = []
    for i, (query_id, rows, answers) in enumerate(_prompts(run, "lm-eval")):
        heat = {"temperature": float(rows["temperature"].iloc[0])} if "temperature" in rows.columns else {}
        texts = rows["text"].tolist()
        chat, asked = _chat(rows), rows["query"].iloc[0]
        doc = {"query_id": query_id, "answers": answers} | ({} if chat else {"question": asked})
        asked = [json.dumps(chat, ensure_ascii=False)] if chat else asked
        row = {
            "doc_id": i,
            "doc": doc,
            "target": answers[0] if answers else "",
            "arguments": {"gen_args_0": {"arg_0": asked, "arg_1": {"do_sample": True, **heat}}},
            "resps": [texts],
            "filtered_resps": texts,
            "filter": "none",
            "metrics": [] if grades is None else [metric],
        }
        if heat.get("temperature") == 0:
            row["arguments"]["gen_args_0"]["arg_1"]["do_sample"] = False
        if grades is not None:
            found = [float(value) for value in grades[rows.index]]
            row[metric] = found[0] if len(found) == 1 else found
        out.append(row)
    return out


def plain(run: pd.DataFrame, grades: pd.Series | None) -> list[dict]:
    """A row per prompt: query_id, prompt, answers, responses, scores, as `irlens import` reads it."""
    out = []
    for query_id, rows, answers in _prompts(run, "jsonl"):
        row = {"query_id": query_id, "prompt": _chat(rows) or rows["query"].iloc[0], "responses": rows["text"].tolist()}
        if answers:
            row["answers"] = answers
        if "temperature" in rows.columns:
            row["temperature"] = float(rows["temperature"].iloc[0])
        if grades is not None:
            row["scores"] = [float(value) for value in grades[rows.index]]
        out.append(row)
    return out


# -- Every Eval Ever -----------------------------------------------------------------------------------------------


def every_eval_ever(
    run: pd.DataFrame, grades: pd.Series, results: pd.DataFrame, source: Source, name: str
) -> tuple[dict, list[dict]]:
    """(the evaluation, its instances) in Every Eval Ever's schema, version 0.2.2: a result per row of `results`, with
    its interval, and an instance per draw, tied to the first result, whose score is its grade.

    name: of the file of the instances. `checksum` of its text completes the evaluation.
    """
    identifier = f"{source.dataset}/{source.model}/{source.time}"
    heat = {"temperature": float(run["temperature"].iloc[0])} if "temperature" in run.columns else {}
    found = [_result(row, identifier, source, heat) for row in results.itertuples()]
    instances = [
        _instance(draw, query_id, answers, float(grades[draw.Index]), identifier, source, found[0])
        for query_id, rows, answers in _prompts(run, "every-eval-ever")
        for draw in rows.itertuples()
    ]
    told = {"source_name": "irlens", "source_type": "evaluation_run"}
    told |= {"source_organization_name": source.organization, "evaluator_relationship": "other"}
    return {
        "schema_version": EVERY_EVAL_EVER,
        "evaluation_id": identifier,
        "retrieved_timestamp": str(source.time),
        "source_metadata": told,
        "eval_library": {"name": "irlens", "version": source.version},
        "model_info": {"name": source.model, "id": source.model},
        "evaluation_results": found,
        "detailed_evaluation_results": {"format": "jsonl", "file_path": name, "total_rows": len(instances)},
    }, instances


def _result(row, identifier: str, source: Source, heat: dict) -> dict:
    """One measure of the evaluation."""
    kind, shares = str(row.measure).partition("@")[0], row.low >= 0 and row.high <= 1
    config: dict = {"metric_id": "pass_at_k" if kind == "Pass" else kind.lower(), "metric_name": str(row.measure)}
    config |= {"lower_is_better": False}
    if shares:  # a continuous score must tell its bounds, and a reward has none
        config |= {"metric_unit": "proportion", "score_type": "continuous", "min_score": 0.0, "max_score": 1.0}
    if pd.notna(row.cutoff):
        config["metric_parameters"] = {"k": int(row.cutoff)}
    interval = {"lower": float(row.low), "upper": float(row.high), "confidence_level": 0.95, "method": "over prompts"}
    uncertainty = {"num_samples": int(row.n)} | ({"confidence_interval": interval} if row.low == row.low else {})
    return {
        "evaluation_result_id": f"{identifier}/{row.measure}",
        "evaluation_name": source.dataset,
        "source_data": {"dataset_name": source.dataset, "source_type": "other"},
        "metric_config": config,
        "score_details": {"score": float(row.value), "uncertainty": uncertainty},
        "generation_config": {"generation_args": heat},
    }


def _instance(draw, query_id: str, answers: list[str], grade: float, identifier: str, source: Source, of: dict) -> dict:
    """One draw with its verdict."""
    asked = draw.query + "".join(answers)
    tokens = getattr(draw, "n_tokens", None)
    more = {"draw": str(draw.doc_id)} | ({"output_tokens": str(int(tokens))} if tokens == tokens and tokens else {})
    return {
        "schema_version": f"instance_level_eval_{EVERY_EVAL_EVER}",
        "evaluation_id": identifier,
        "model_id": source.model,
        "evaluation_name": source.dataset,
        "evaluation_result_id": of["evaluation_result_id"],
        "sample_id": query_id,
        "sample_hash": hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": draw.query, "reference": answers},
        "output": {"raw": [draw.text]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": draw.text,
                "extraction_method": "custom",
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": grade, "is_correct": grade >= 1},
        "metadata": more,
    }


def checksum(text: str) -> dict[str, str]:
    """What an evaluation says of the file of its instances."""
    return {"hash_algorithm": "sha256", "checksum": hashlib.sha256(text.encode()).hexdigest()}

"""The whole inputs that the fuzz spoils, by name: small files of every form, and the command lines that read them."""

from __future__ import annotations

from dataclasses import replace

from fuzz_inputs import OUT, Base

ASKED = ["What is 1 + 1?", "What is 2 + 3?", "What is 4 + 4?"]
TALK = [[{"role": "system", "content": "Be short."}, {"role": "user", "content": text}] for text in ASKED]
TEXTS = [[{"role": "assistant", "content": f"#### {i}"}] for i in range(3)]
RUN = [
    ["q0", "Q0", "a", 0, 2.5, "x"],
    ["q0", "Q0", "b", 1, 1.5, "x"],
    ["q1", "Q0", "a", 0, 0.5, "x"],
    ["q1", "Q0", "c", 1, -1, "x"],
]
QRELS = [["q0", 0, "a", 1], ["q0", 0, "b", 0], ["q1", 0, "c", 2]]
ROWS = [{"query_id": f"q{i // 2}", "doc_id": f"d{i}", "score": 2.0 - i, "rank": i % 2, "text": f"it is\n#### {i}", "tag": "t T=0.7",
         "temperature": 0.7, "draw": i % 2, "logprob": -1.5, "n_tokens": 3, "finish_reason": "stop", "query": ASKED[i // 2],
         "answers": [str(i)]} for i in range(4)]  # fmt: skip
JUDGED = [{"query_id": f"q{i // 2}", "doc_id": f"d{i}", "relevance": i % 2} for i in range(4)]
DRAWS = [{"query_id": f"q{i}", "prompt": ASKED[i], "responses": ["a", "bb"], "scores": [0, 1]} for i in range(3)]
PAIRS = [{"prompt": ASKED[i], "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(3)]
LISTS = [{"query_id": f"q{i // 2}", "query": ASKED[i // 2], "doc_id": f"d{i}", "text": f"text {i}", "grade": float(1 - i % 2),
          "tier": "positive" if i % 2 == 0 else "own", "iteration": 0} for i in range(4)]  # fmt: skip
LM_EVAL = [{"doc_id": i, "doc": {"question": ASKED[i]}, "target": f"#### {i}", "filter": "none", "metrics": ["exact_match"],
            "arguments": {"gen_args_0": {"arg_0": ASKED[i], "arg_1": {"do_sample": True, "temperature": 1.0}}},
            "resps": [[f"#### {i}", "no"]], "filtered_resps": [f"#### {i}", "no"], "exact_match": [1.0, 0.0]} for i in range(3)]  # fmt: skip
INSPECT = {"version": 2, "status": "success", "eval": {"task": "a", "model": "m", "created": "2026-01-01T00:00:00+00:00",
           "dataset": {"samples": 3}, "config": {"epochs": 1}, "model_generate_config": {"temperature": 0.5}},
           "results": {"total_samples": 3, "completed_samples": 3, "scores": [{"name": "match", "scorer": "match", "metrics":
           {"accuracy": {"name": "accuracy", "value": 1.0}}}]}, "samples": [{"id": i + 1, "epoch": 1, "input": ASKED[i], "target": "2",
           "messages": [], "output": {"model": "m", "choices": [{"message": {"role": "assistant", "content": "2"}, "stop_reason": "stop"}],
           "completion": "2", "usage": {"output_tokens": 4}}, "scores": {"match": {"value": "C"}}, "metadata": {}} for i in range(3)]}  # fmt: skip
BATCH = [{"id": "b", "custom_id": f"k{i}", "error": None, "response": {"status_code": 200, "request_id": "r", "body": {"id": "c", "model":
          "g", "choices": [{"index": 0, "message": {"role": "assistant", "content": "2"}, "finish_reason": "stop"}],
          "usage": {"completion_tokens": 7}}}} for i in range(3)]  # fmt: skip
REQUESTS = [
    {"custom_id": f"k{i}", "method": "POST", "url": "/v1", "body": {"model": "g", "messages": TALK[i]}}
    for i in range(3)
]
TRL = [{"step": 1, "prompt": TALK[i], "completion": TEXTS[i], "correct": 1.0, "advantage": 0.5} for i in range(3)]
OUTPUTS = [{"dataset": "own", "instruction": ASKED[i], "output": "x" * (i + 1), "generator": "mine"} for i in range(3)]
OTHERS = [{**row, "output": "yy", "generator": "base"} for row in OUTPUTS]
ANNOTATED = [{"instruction": ASKED[i], "output_1": "yy", "generator_1": "base", "output_2": "x" * (i + 1), "generator_2": "mine",
              "annotator": "a", "preference": [1.2, 2.0, 1.7][i]} for i in range(3)]  # fmt: skip
FREE = {str(i): {"problem_type": "free-form", "context": None, "prompt": f"who is {i}?", "target": [f"n{i}"], "benchmark_name": "TriviaQA"} for i in range(2)}  # fmt: skip
CHOICE = {str(i): {"problem_type": "multiple-choice", "context": None, "prompt": f"which {i}?", "options": ["x", "y"], "target": [i], "benchmark_name": "ARC"} for i in range(2)}  # fmt: skip
SAID = [{**row, "formated_input": f"Question: {row['prompt']}\nAnswer the question shortly.", "id": key, "response": f"n{key}"} for key, row in FREE.items()]  # fmt: skip
BENCH = [*({"id": str(i), "prompt": ASKED[i], "chosen": ["right"], "rejected": ["no", "wrong", "none"], "num_correct": 1,
            "total_completions": 4, "subset": "Math"} for i in range(2)),
         *({"id": f"{kind}:0", "prompt": f"Name {kind}", "chosen": ["right"] * n, "rejected": ["no"], "num_correct": n,
            "total_completions": n + 1, "subset": "Ties"} for kind, n in (("ref", 1), ("tied", 2)))]  # fmt: skip
UIDS = [{"uid": f"u{i}", "category": "hard_prompt", "prompt": ASKED[i]} for i in range(3)]
SPOKE = [{"uid": f"u{i}", "model": "o3-mini-2025-01-31", "messages": [{"role": "user", "content": ASKED[i]}, {"role": "assistant", "content":
          {"answer": "x" * i}}], "metadata": {"token_len": i, "header_count": {"h1": 1}, "list_count": {"ordered": i}, "bold_count": {"**": 2}}} for i in range(3)]  # fmt: skip
GAMES = [{"uid": f"u{i}", "category": "hard_prompt", "judge": "j", "model": "mine", "games": [{"score": "A>>B"}, None if i == 2 else {"score": "A=B"}]} for i in range(3)]  # fmt: skip
TURNS = [{"question_id": 81 + i, "category": "math", "turns": ["a?", "b?"]} for i in range(2)]
GRADES = [{"question_id": 81 + i, "model": "mine", "judge": ["gpt-4", "single-v1"], "turn": turn, "score": 3 + i} for i in range(2) for turn in (1, 2)]  # fmt: skip
RECIPE = """title = "a study"
[study]
kind = "axis"
claim = "Nothing."
x_label = "temperature"
[study.tiny]
temperature = 1.0
x = [0.7, 1.0]
better = ["a > b"]
[shared.tiny]
stage = "train"
prompts = 4
n = 4
iterations = 1
epochs = 1
eval_split = "test"
eval_limit = 4
eval_n = 2
beta = 0.1
[[preset.tiny]]
name = "a"
temperature = [0.7]
[[preset.tiny]]
name = "b"
temperature = [1.0]
"""
STAGES = """title = "stages"
[[preset.tiny]]
stage = "passk"
name = "draws"
limit = 2
n = 4
temperature = [0.7, 1.0]
at = [1, 4]
seed = 0
[[preset.tiny]]
stage = "rerank"
run = "@draws"
reranker = "length"
[[preset.tiny]]
stage = "mine-negatives"
limit = 4
n = 4
margin = 0.5
text_threshold = 1.0
[[preset.tiny]]
stage = "recall"
retriever = "bm25"
at = [1, 5]
shard_size = 8
[[preset.tiny]]
stage = "best-of-n"
run = "@draws"
right_from = 1.0
"""
CHAT = {"id": "c", "object": "chat.completion", "model": "stub", "choices": [{"index": i, "finish_reason": "stop", "message": {"role":
        "assistant", "content": f"#### {i}"}, "logprobs": {"content": [{"token": "a", "logprob": -0.5}]}} for i in range(2)],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}  # fmt: skip

NONE = ["--store", "none"]
DRAWN = ["--limit", "2", "-n", "2", "--max-tokens", "4", "--temperature", "0.7"]
PASSK = ["passk", *DRAWN, "--at", "1,2", *NONE]
MODEL = ["sample", "--messages-as", "user", "--limit", "1", "-n", "1", "--max-tokens", "2", *NONE, "--dataset"]
MEASURED = ["evaluate", "run", "qrels", "nDCG@3 Success@1 RR"]


def _task(form: str, rows: object, *more: str) -> Base:
    """Gold answers from a file of some form: all of it is read, and no model."""
    return Base("task files", ["verify", "run.parquet", "--dataset", f"data.{form}", "--verifier", "gsm8k", *more, *OUT],
                {f"data.{form}": (form, rows), "run.parquet": ("parquet", [{**row, "query_id": f"q{i // 2}"} for i, row in enumerate(ROWS)])})  # fmt: skip


def _tables(run: str, qrels: str) -> Base:
    kinds = {"trec": ("lines", RUN), "parquet": ("parquet", ROWS), "json": ("json", {"q0": {"d0": 1.5, "d1": 0.5}, "q1": {"d2": 1, "d3": 3}})}  # fmt: skip
    judged = {"trec": ("lines", QRELS), "parquet": ("parquet", JUDGED), "json": ("json", {"q0": {"d0": 1, "d1": 0}, "q1": {"d3": 1}}),
              "tsv": ("tsv", [["query-id", "corpus-id", "score"], ["q0", "d0", 1], ["q1", "d3", 2]])}  # fmt: skip
    return Base("runs and qrels", ["evaluate", f"run.{run}", f"qrels.{qrels}", "nDCG@3 Success@1 RR", *OUT],
                {f"run.{run}": kinds[run], f"qrels.{qrels}": judged[qrels]})  # fmt: skip


def _import(name: str, form: str, rows: object, *more: str, **others) -> Base:
    return Base("imports", ["import", name, *more, *OUT], {name: (form, rows), **others})


ANSWERED = [{"query_id": f"q{i}", "question": ASKED[i], "answer": f"so\n#### {i}"} for i in range(2)]
TASKS = {
    f"task {form}": _task(form, [{"query_id": f"q{i}", "prompt": ASKED[i], "answer": str(i), "solution": "s"} for i in range(2)])
    for form in ("jsonl", "json", "csv", "parquet")
}  # fmt: skip
SAMPLED = {
    f"prompts {name}": Base("task files", [*MODEL, f"data.{form}", *OUT], {f"data.{form}": (form, rows)})
    for name, form, rows in (
        ("messages", "jsonl", [{"id": i, "messages": talk} for i, talk in enumerate(TALK)]),
        ("pairs", "jsonl", PAIRS),
        ("chats", "parquet", [{"chosen": TALK[i] + TEXTS[i], "rejected": TALK[i] + TEXTS[i - 1]} for i in range(3)]),
        ("kto", "jsonl", [{"prompt": text, "completion": "a", "label": True} for text in ASKED]),
    )
}
BEIR = {"beir/corpus.jsonl": ("jsonl", [{"_id": f"d{i}", "title": "", "text": f"word{i} of it"} for i in range(4)]),
        "beir/queries.jsonl": ("jsonl", [{"_id": f"q{i}", "text": f"word{i}"} for i in range(2)]),
        "beir/qrels/test.tsv": ("tsv", [["query-id", "corpus-id", "score"], ["q0", "d0", 1], ["q1", "d1", 1]])}  # fmt: skip
LISTED = {
    f"lists {name}": Base("lists", ["train", "--lists", f"lists.{form}", "--epochs", "1", "--messages-as", "user", *NONE, *OUT], {f"lists.{form}": (form, rows)})
    for name, form, rows in (
        ("pairs", "jsonl", PAIRS), ("chats", "json", [{"prompt": TALK[i], "chosen": TEXTS[i], "rejected": TEXTS[i - 1]} for i in range(3)]),
        ("scored", "jsonl", [{"prompt": text, "completions": ["a", "b"], "scores": [0.5, 1.5]} for text in ASKED]),
        ("kto", "csv", [{"prompt": text, "completion": f"{d}", "label": bool(d)} for text in ASKED for d in range(2)]),
        ("own", "parquet", LISTS), ("ranked", "parquet", [{"prompt": ASKED[0], "completion": f"c{d}", "score": float(d)} for d in range(3)]),
    )
}  # fmt: skip
LEARNT = {
    f"reranker of {name}": replace(
        base, argv=["fit-reranker", base.argv[2], "--held-out", "0.3", "--batch-lists", "2", *NONE, *OUT]
    )
    for name, base in LISTED.items()
}
FOLDERS = {  # commands that find folders as others wrote them
    "continued passk": Base("folders", [*PASSK, "--out", "p"], folders=("p",)),
    "verified": Base("folders", ["verify", "p", *OUT], folders=("p",)),
    "reranked": Base("folders", ["rerank", "p", "--reranker", "length", *NONE, *OUT], folders=("p",)),
    "exported": Base("folders", ["export", "p", "--to", "jsonl", *OUT], folders=("p",)),
    "by temperature": Base("folders", ["temperatures", "p", "p", *OUT], folders=("p",)),
    "compared": Base("folders", ["compare", "p", "q", "--measures", "Pass@1", *NONE, *OUT], folders=("p", "q")),
    "plotted": Base("folders", ["plot", "p/passk.csv", *OUT], folders=("p",)),
    "redrawn": Base("folders", ["evaluate", "p", "p", "Pass@1", *OUT], folders=("p",)),
}  # fmt: skip
TABLES = {"run.parquet": ("parquet", ROWS), "qrels.parquet": ("parquet", JUDGED), "data.jsonl": ("jsonl", [
    {"query_id": f"q{i}", "prompt": ASKED[i], "answer": str(2 * i), "solution": f"#### {2 * i}"} for i in range(2)]),
    "draws.jsonl": ("jsonl", DRAWS), "mine.toml": STAGES, "mine.json": ("json", OUTPUTS), "base.json": ("json", OTHERS),
    "games.jsonl": ("jsonl", GAMES), "grades.jsonl": ("jsonl", GRADES), "rb.jsonl": ("jsonl", BENCH),
    "annotations.json": ("json", ANNOTATED)}  # fmt: skip
MINED = ["mine-negatives", "--run", "run.parquet", "--dataset", "data.jsonl", "--verifier", "gsm8k", "--temperature", "0.7", "-n", "2",
         "--tier", "hard", "--no-hardness", *NONE]  # fmt: skip
OPTIONS = {  # the line of each command that options are added to; what would draw ends where its data set is not found
    "sample": [*MODEL, "nothing.jsonl"], "passk": ["passk", "--dataset", "nothing.jsonl", *NONE],
    "index": ["index", "--dataset", "nothing"], "recall": ["recall", "--retriever", "bm25", "--dataset", "nothing"],
    "mine-negatives": MINED, "train": ["train", "--dataset", "nothing.jsonl", *NONE],
    "fit-reranker": ["fit-reranker", "nothing.jsonl", *NONE],
    "rerank": ["rerank", "run.parquet", "--reranker", "length", *NONE], "verify": ["verify", "run.parquet", "--verifier", "gsm8k"],
    "best-of-n": ["best-of-n", "run.parquet", "qrels.parquet", "--reranker", "length", "--at", "1,2", *NONE],
    "evaluate": ["evaluate", "run.parquet", "qrels.parquet", "RR"], "compare": ["compare", "p", "q", "--measures", "Pass@1", *NONE],
    "winrate": ["winrate", "mine.json", "--baseline", "base.json", "--judge", "length", "--resamples", "5", *NONE],
    "rewardbench": ["rewardbench", "--data", "rb.jsonl", "--run", "run.parquet", "--qrels", "qrels.parquet", "--reranker", "length", "--resamples", "5", *NONE],
    "arena-hard": ["arena-hard", "games.jsonl", "--resamples", "2", *NONE], "mt-bench": ["mt-bench", "grades.jsonl", *NONE],
    "judges": ["judges", "annotations.json", "--judge", "length", "--resamples", "5", *NONE],
    "mixeval": ["mixeval", "run.parquet", *NONE], "import": ["import", "draws.jsonl"], "export": ["export", "run.parquet", "--to", "jsonl"],
    "temperatures": ["temperatures", "run.parquet", "qrels.parquet"], "plot": ["plot", "p/passk.csv"],
    "reproduce": ["reproduce", "mine.toml", "--dry-run"], "demo": ["demo", "--seed", "-1"], "store": ["store"], "doctor": ["doctor"],
}  # fmt: skip
BASES: dict[str, Base] = {
    **TASKS, **SAMPLED, **LISTED, **LEARNT, **FOLDERS,
    "gsm8k rows": _task("jsonl", ANSWERED),
    "columns": _task("jsonl", [{"a": ASKED[i], "b": str(i), "n": f"q{i}"} for i in range(2)], "--columns", "prompt=a,answer=b,id=n"),
    "beir": Base("task files", ["recall", "--retriever", "bm25", "--dataset", "beir", "--at", "1,2", *OUT], BEIR),
    **{f"{run} x {qrels}": _tables(run, qrels) for run, qrels in (("parquet", "parquet"), ("parquet", "json"), ("parquet", "tsv"),
                                                                 ("json", "parquet"), ("trec", "trec"))},
    "mined": Base("runs and qrels", [*MINED, *OUT], {name: TABLES[name] for name in ("run.parquet", "data.jsonl")}),
    "rerank table": Base("runs and qrels", ["rerank", "run.parquet", "--reranker", "length", *NONE, *OUT], {"run.parquet": ("parquet", ROWS)}),
    "vote table": Base("runs and qrels", ["best-of-n", "run.parquet", "qrels.parquet", "--reranker", "mean-likelihood,score", "--at", "1,2", *NONE, *OUT],
                       {"run.parquet": ("parquet", ROWS), "qrels.parquet": ("parquet", JUDGED)}),
    "verify table": Base("runs and qrels", ["verify", "run.parquet", "--verifier", "gsm8k", *OUT], {"run.parquet": ("parquet", ROWS)}),
    "export table": Base("runs and qrels", ["export", "run.parquet", "--to", "jsonl", *OUT], {"run.parquet": ("parquet", ROWS)}),
    "lm-eval": _import("samples_a.jsonl", "jsonl", LM_EVAL), "inspect": _import("log.json", "json", INSPECT),
    "batch": _import("out.jsonl", "jsonl", BATCH, "--requests", "in.jsonl", **{"in.jsonl": ("jsonl", REQUESTS)}),
    "plain": _import("draws.jsonl", "jsonl", DRAWS), "trl": _import("c.parquet", "parquet", TRL),
    "alpaca-eval": _import("model_outputs.json", "json", OUTPUTS),
    "mixeval responses": _import("m_close_freeform.jsonl", "jsonl", SAID),
    "outputs": Base("winrate", ["winrate", "mine.json", "--baseline", "base.json", "--judge", "length", "--resamples", "5", *NONE, *OUT],
                    {"mine.json": ("json", OUTPUTS), "base.json": ("json", OTHERS)}),
    "annotations": Base("winrate", ["winrate", "annotations.json", "--resamples", "5", *NONE, *OUT], {"annotations.json": ("json", ANNOTATED)}),
    "judgements": Base("winrate", ["judges", "annotations.json", "--judge", "length", "--resamples", "5", *NONE, *OUT], {"annotations.json": ("json", ANNOTATED)}),
    "mixeval": Base("mixeval", ["mixeval", "m", "--dataset", "mixeval-2024-06-01", "--split", "mixeval", "--allow-missing", *NONE, *OUT],
                    {"mixeval-2024-06-01/mixeval/free-form.json": ("json", FREE), "mixeval-2024-06-01/mixeval/multiple-choice.json": ("json", CHOICE),
                     "m/mixeval/2024-06-01/m_close_freeform.jsonl": ("jsonl", SAID)}),
    "rewardbench": Base("rewardbench", ["rewardbench", "--data", "rb.jsonl", "--reranker", "length", "--resamples", "5", *NONE, *OUT],
                        {"rb.jsonl": ("jsonl", BENCH)}),
    "arena-hard": Base("winrate", ["arena-hard", "games.jsonl", "--dataset", "a", "--resamples", "2", "--allow-missing", *NONE, *OUT],
                       {"games.jsonl": ("jsonl", GAMES), "a/question.jsonl": ("jsonl", UIDS), "a/model_answer/o.jsonl": ("jsonl", SPOKE)}),
    "mt-bench": Base("winrate", ["mt-bench", "grades.jsonl", "--dataset", "b", "--allow-missing", *NONE, *OUT],
                     {"grades.jsonl": ("jsonl", GRADES), "b/question.jsonl": ("jsonl", TURNS)}),
    "study": Base("recipes", ["reproduce", "mine.toml", "--dry-run"], {"mine.toml": RECIPE}),
    "stages": Base("recipes", ["reproduce", "mine.toml", "--dry-run"], {"mine.toml": STAGES}),
    "server": Base("server answers", ["sample", "--chat", "--engine", "openai", "--base-url", "{url}", "--served-model", "stub", "--dataset",
                   "data.jsonl", "--limit", "1", "-n", "2", "--max-tokens", "8", *NONE, *OUT],
                   {"data.jsonl": ("jsonl", [{"prompt": "a"}])}, answer=CHAT),
    **{f"options of {name}": Base("options", [*line, *([] if name in ("doctor", "store", "reproduce") else OUT)], TABLES, folders=("p", "q") if name in ("compare", "plot") else ())
       for name, line in OPTIONS.items()},
}  # fmt: skip

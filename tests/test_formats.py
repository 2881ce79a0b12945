"""Files of other tools, made here in their layouts: what is read of them, their own figures, and how bad ones are refused."""

import gzip
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens import tables
from irlens.base.errors import UserError
from irlens.tables import formats
from irlens.tables.formats import inspect_log

QUESTIONS = [("What is 1 + 1?", "2"), ("What is 2 + 3?", "5"), ("What is 4 + 4?", "8")]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample(i, responses, metrics, filter="strict-match", filtered=None, **more):
    """A line of lm-eval's samples."""
    question, gold = QUESTIONS[i]
    generation = {"until": ["Question:"], "do_sample": len(responses) > 1, "temperature": 0.8}
    return {
        "doc_id": i,
        "doc": {"question": question, "answer": f"#### {gold}"},
        "target": f"#### {gold}",
        "arguments": {"gen_args_0": {"arg_0": f"Question: {question}\nAnswer:", "arg_1": generation}},
        "resps": [responses],
        "filtered_resps": filtered or [responses[0].split()[-1]],
        "filter": filter,
        "metrics": list(metrics),
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        **metrics,
        **more,
    }


def log(epochs=2, **more):
    """A log of inspect_ai: three questions, each answered in every epoch; only the first epoch is right."""
    samples = []
    for epoch in range(1, epochs + 1):
        for i, (question, gold) in enumerate(QUESTIONS):
            text = f"ANSWER: {gold}" if epoch == 1 else "I do not know"
            message = {"role": "assistant", "content": text}
            scores = {"match": {"value": "C" if epoch == 1 else "I"}, "graded": {"value": {"style": 0.25 * epoch}}}
            samples.append(
                {
                    "id": i + 1,
                    "epoch": epoch,
                    "input": question,
                    "target": gold,
                    "messages": [],
                    "output": {
                        "model": "m",
                        "choices": [{"message": message, "stop_reason": "stop"}],
                        "completion": text,
                        "usage": {"input_tokens": 5, "output_tokens": 4, "total_tokens": 9},
                    },
                    "scores": scores,
                    "metadata": {},
                }
            )
    results = [
        {"name": "match", "scorer": "match", "metrics": {"accuracy": {"name": "accuracy", "value": 1 / epochs}}},
    ]
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "task": "adding",
            "model": "openai/some-model",
            "created": "2026-01-01T00:00:00+00:00",
            "dataset": {"samples": 3},
            "config": {"epochs": epochs},
            "model_generate_config": {"temperature": 0.5},
        },
        "results": {"total_samples": len(samples), "completed_samples": len(samples), "scores": results},
        "samples": samples,
        **more,
    }


def zipped(path, made):
    """The same as a `.eval` file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.json", json.dumps({k: v for k, v in made.items() if k != "samples"}))
        for one in made["samples"]:
            file.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
    return path


def answer(key, *texts, status=200, **more):
    """A line of a batch's output."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i, text in enumerate(texts)
    ]
    body = {"id": "c", "model": "gpt-x", "choices": choices, "usage": {"completion_tokens": 7}}
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": key, "response": response, "error": None, **more}


def request(key, question, **body):
    """A line of a batch's input."""
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}]
    body = {"model": "gpt-x", "messages": messages, **body}
    return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}


def completions(path, step, rewards):
    """A Parquet file of TRL's: four completions of two prompts."""
    prompts = [[{"role": "user", "content": QUESTIONS[i][0]}] for i in (0, 0, 1, 1)]
    texts = [[{"role": "assistant", "content": f"step {step}, {i}"}] for i in range(4)]
    frame = {"step": [step] * 4, "prompt": prompts, "completion": texts, **rewards, "advantage": [0.7, -0.7, 0.0, 0.0]}
    pd.DataFrame(frame).to_parquet(path)
    return path


def pass_at_1(found):
    return irlens.measure(found.run, found.qrels, ["Pass@1"])["value"].tolist()


# -- lm-eval -------------------------------------------------------------------------------------------------------


def test_exact_match_of_lm_eval_is_pass_at_1_filter_by_filter(tmp_path):
    texts, strict, loose = ["#### 2", "#### 6", "8 is it"], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]
    rows = [sample(i, [t], {"exact_match": s}) for i, (t, s) in enumerate(zip(texts, strict))]
    rows += [sample(i, [t], {"exact_match": s}, "flexible-extract") for i, (t, s) in enumerate(zip(texts, loose))]
    path = write(tmp_path / "samples_gsm8k_2026-01-02T03-04-05.678.jsonl", rows)
    found = formats.read(path)
    assert (found.format, found.judged_by, found.log.task) == ("lm-eval", "exact_match,strict-match", "gsm8k")
    assert found.judgements == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert found.log.reported["exact_match,strict-match"] == np.mean(strict) == pass_at_1(found)[0]
    assert found.run["query_id"].tolist() == ["gsm8k-0", "gsm8k-1", "gsm8k-2"]
    assert found.run["query"].tolist() == [question for question, _ in QUESTIONS]
    assert found.run["text"].tolist() == texts and set(found.run["temperature"]) == {0.0}  # do_sample: false
    assert pass_at_1(formats.read(path, judged_by="exact_match,flexible-extract")) == [np.mean(loose)]
    verdicts = irlens.verify(found.run, "gsm8k")  # the targets come along
    assert verdicts["relevance"].tolist() == [1, 0, 1]


def test_of_several_responses_only_those_that_a_metric_judges_are_judged(tmp_path):
    draws = ["#### 2", "#### 3", "#### 2"]
    each = formats.read(write(tmp_path / "samples_a.jsonl", [sample(0, draws, {"exact_match": [1.0, 0.0, 1.0]})]))
    assert each.qrels["relevance"].tolist() == [1, 0, 1] and pass_at_1(each) == [pytest.approx(2 / 3)]
    assert each.run["temperature"].tolist() == [0.8] * 3
    voted = formats.read(write(tmp_path / "samples_b.jsonl", [sample(0, draws, {"exact_match": 1.0}, "maj@3")]))
    assert voted.qrels is None and voted.judged_by is None and len(voted.run) == 3
    assert voted.log.reported == {"exact_match,maj@3": 1.0}  # what the file says is not lost
    passed = sample(0, draws, {"exact_match": 1.0}, "take_first", filtered=["#### 2"])
    some = formats.read(write(tmp_path / "samples_c.jsonl", [passed]))
    assert some.qrels is None and "judges 2 of 3 draws" in some.log.notes[0]  # the draw with another text is not


def test_a_question_with_a_passage_is_what_the_model_read_and_a_chat_is_a_chat(tmp_path):
    row = sample(0, ["yes"], {"em": 1.0})
    row["doc"]["passage"] = "A long one."
    assert formats.read(write(tmp_path / "a.jsonl", [row])).run["query"][0].startswith("Question: What is 1")
    row["arguments"]["gen_args_0"]["arg_0"] = [json.dumps([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])]  # fmt: skip
    found = formats.read(write(tmp_path / "b.jsonl", [row])).run
    assert found["query"].tolist() == ["U"] and [m["role"] for m in found["messages"][0]] == ["system", "user"]


def test_choices_scored_by_likelihood_are_no_draws(tmp_path):
    row = sample(0, ["a"], {"acc": 1.0}) | {"resps": [[["-1.5", "False"]], [["-0.5", "True"]]]}
    with pytest.raises(UserError, match=r"a\.jsonl:1: resps hold no responses .* only tasks that generate"):
        formats.read(write(tmp_path / "a.jsonl", [row]))


# -- inspect_ai ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "eval"])
def test_accuracy_of_inspect_is_pass_at_1_over_epochs(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(inspect_log, "by_own_reader", lambda path: None)
    made = log(epochs=4)
    path = tmp_path / f"log.{kind}"
    zipped(path, made) if kind == "eval" else path.write_text(json.dumps(made))
    found = formats.read(path)
    assert (found.format, found.judged_by, found.log.model) == ("inspect", "match", "openai/some-model")
    assert found.log.reported["match"] == 0.25 and pass_at_1(found) == [pytest.approx(0.25, rel=1e-12)]
    measured = irlens.measure(found.run, found.qrels, ["Pass@4"])
    assert measured["value"].tolist() == [1.0] and measured["n"].tolist() == [3] and measured["low"][0] < 0.9
    assert found.run.groupby("query_id")["draw"].apply(list).tolist() == [[0, 1, 2, 3]] * 3
    assert set(found.run["temperature"]) == {0.5} and set(found.run["n_tokens"]) == {4}
    assert [list(a) for a in found.run["answers"][::4]] == [["2"], ["5"], ["8"]]
    graded = formats.read(path, judged_by="graded/style")
    assert graded.qrels is None and sorted(set(graded.run["reward"])) == [0.25, 0.5, 0.75, 1.0]


def test_inspect_values_are_what_inspect_takes_them_for(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_log, "by_own_reader", lambda path: None)
    made = log(epochs=2)
    for one, value in zip(made["samples"], ["C", "I", "P", "N", "yes", "0.5"]):
        one["scores"] = {"s": {"value": value}}
    made["samples"][0]["output"]["completion"] = "attachment://abc"
    made["samples"][0]["attachments"] = {"abc": "a long text"}
    made["samples"][1]["input"] = [{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "text", "text": "U"}]}]  # fmt: skip
    made["samples"][4]["input"] = made["samples"][1]["input"]
    made["samples"][2]["output"]["choices"][0]["stop_reason"] = "max_tokens"
    path = tmp_path / "log.json"
    path.write_text(json.dumps(made))
    run = formats.read(path).run
    assert run["reward"].tolist() == [1, 0, 0, 1, 0.5, 0.5] and "relevance" not in run
    assert run["text"][0] == "a long text" and run["query"][2] == "U" and run["messages"][2][0]["content"] == "S"
    assert run["messages"][0] == [{"role": "user", "content": QUESTIONS[0][0]}]
    assert run["finish_reason"].tolist() == ["stop", "stop", "stop", "stop", "length", "stop"]


def test_failed_samples_are_counted_not_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_log, "by_own_reader", lambda path: None)
    made = log(epochs=1)
    made["samples"][1]["error"] = {"message": "timeout"}
    path = tmp_path / "log.json"
    path.write_text(json.dumps(made))
    found = formats.read(path)
    assert found.log.left_out == {"samples that failed": 1} and len(found.run) == 2
    for one in made["samples"]:
        one["error"] = {"message": "timeout"}
    path.write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"log\.json: no draw \(3 samples that failed\)"):
        formats.read(path)


def test_inspects_own_reader_reads_the_same(tmp_path):
    pytest.importorskip("inspect_ai")
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log()))
    own = formats.read(path)
    plain = formats.recognise.imported("inspect", inspect_log.read([(str(path), log())], formats.draws.About(tmp_path / "x.eval")), None, "x")  # fmt: skip
    pd.testing.assert_frame_equal(own.run, plain.run)
    assert pass_at_1(own) == [0.5]


# -- batches, TRL, AlpacaEval, plain -------------------------------------------------------------------------------


def test_a_batch_meets_its_prompts_in_the_requests(tmp_path):
    requests = [request("r-0", QUESTIONS[0][0], temperature=0.7), request("r-1", QUESTIONS[1][0])]
    asked = write(tmp_path / "in.jsonl", requests)
    out = write(tmp_path / "out.jsonl", [answer("r-1", "5", "6"), answer("r-0", "2")])
    found = formats.read(out, requests=asked)
    assert found.format == "batch" and found.log.model == "gpt-x" and found.qrels is None
    of = dict(iter(found.run.groupby("query")))
    assert of[QUESTIONS[1][0]]["text"].tolist() == ["5", "6"] and set(of[QUESTIONS[1][0]]["temperature"]) == {1.0}
    assert of[QUESTIONS[0][0]]["temperature"].tolist() == [0.7]
    assert of[QUESTIONS[0][0]]["messages"].iloc[0][0] == {"role": "system", "content": "Be short."}
    alone = formats.read(out)
    assert set(alone.run["query_id"]) == {"r-0", "r-1"} and "query" not in alone.run
    assert "--requests" in alone.log.notes[0]


def test_requests_of_one_prompt_are_draws_of_one_query_and_failed_ones_are_counted(tmp_path):
    asked = write(tmp_path / "in.jsonl", [request(f"r-{i}", QUESTIONS[0][0]) for i in range(4)])
    lines = [answer(f"r-{i}", str(i)) for i in range(2)]
    lines += [answer("r-2", status=500), answer("r-3", error={"code": "expired"})]
    found = formats.read(write(tmp_path / "out.jsonl", lines), requests=asked)
    assert found.run["query_id"].nunique() == 1 and found.run["draw"].tolist() == [0, 1]
    assert found.log.left_out == {"requests that failed": 2}
    strange = write(tmp_path / "strange.jsonl", [answer("r-9", "x")])
    with pytest.raises(UserError, match=r"strange\.jsonl:1: custom_id 'r-9' is in no line of --requests"):
        formats.read(strange, requests=asked)
    with pytest.raises(UserError, match="--requests is for a batch's output"):
        formats.read(write(tmp_path / "p.jsonl", [{"prompt": "a", "response": "b"}]), requests=asked)


def test_completions_and_log_probabilities_of_a_batch(tmp_path):
    tokens = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]}
    choice = {"index": 0, "text": "ab", "finish_reason": "length", "logprobs": tokens}
    body = {"model": "m", "choices": [choice], "usage": {"completion_tokens": 2}}
    row = {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}
    run = formats.read(write(tmp_path / "out.jsonl", [row])).run
    assert run[["text", "logprob", "n_tokens", "finish_reason"]].values.tolist() == [["ab", -0.75, 2, "length"]]


def test_completions_of_trl_and_their_reward_functions(tmp_path):
    rewards = {"accuracy_reward": [1.0, 0.0, 0.0, 0.0], "length_reward": [0.5, 0.25, 0.0, 1.0]}
    one = formats.read(completions(tmp_path / "completions_00001.parquet", 1, rewards))
    assert (one.format, one.judged_by) == ("trl", "accuracy_reward")
    assert one.judgements == ["accuracy_reward", "length_reward", "advantage"]
    assert pass_at_1(one) == [np.mean(rewards["accuracy_reward"])] == [0.25]
    assert one.run["query"].nunique() == 2 and one.run["text"].str.startswith("step 1").all()
    by_length = formats.read(tmp_path / "completions_00001.parquet", judged_by="length_reward")
    assert by_length.qrels is None
    value = irlens.measure(by_length.run, by_length.run.assign(relevance=by_length.run["reward"]), ["Reward@1"])[
        "value"
    ]
    assert value.tolist() == [np.mean(rewards["length_reward"])]
    completions(tmp_path / "completions_00002.parquet", 2, rewards)
    both = formats.read(tmp_path)
    assert len(both.run) == 8 and set(both.run["step"]) == {1, 2} and "2 steps of a training" in both.log.notes[0]


def test_generators_of_alpaca_eval_are_systems(tmp_path):
    rows = [
        {"instruction": q, "output": f"{name} says {a}", "generator": name, "dataset": "helpful_base"}
        for name in ("one", "two")
        for q, a in QUESTIONS
    ]
    path = tmp_path / "model_outputs.json"
    path.write_text(json.dumps(rows))
    found = formats.read(path)
    assert found.format == "alpaca-eval" and set(found.run["tag"]) == {"one", "two"} and found.qrels is None
    assert found.run["query_id"].nunique() == 3 and found.run["doc_id"].is_unique and set(found.run["draw"]) == {0}
    assert set(found.run["query_id"]) == {tables.query_id_of(q) for q, _ in QUESTIONS}


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_plain_rows_one_response_a_row_or_several(tmp_path, kind):
    rows = [
        {"prompt": "a?", "responses": ["x", "y"], "scores": [1, 0], "answer": "x", "temperature": 0.5},
        {"prompt": "b?", "responses": ["z", "w"], "scores": [True, True], "answer": "z", "temperature": 0.5},
    ]
    path = tmp_path / f"draws.{kind}"
    if kind == "parquet":
        pd.DataFrame([row | {"scores": [float(s) for s in row["scores"]]} for row in rows]).to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    found = formats.read(path)
    assert found.format == "plain" and found.judged_by == "scores" and pass_at_1(found) == [0.75]
    single = [
        {"prompt": r["prompt"], "response": t, "score": s} for r in rows for t, s in zip(r["responses"], (2.5, -1))
    ]
    found = formats.read(write(tmp_path / "single.jsonl", single))
    assert found.qrels is None and sorted(found.run["reward"]) == [-1, -1, 2.5, 2.5]
    assert found.run["draw"].tolist() == [0, 1, 0, 1] and found.run["query"].nunique() == 2


# -- what is refused -----------------------------------------------------------------------------------------------

GOOD = {
    "lm-eval": lambda: sample(0, ["#### 2"], {"exact_match": 1.0}),
    "batch": lambda: answer("a", "2"),
    "plain": lambda: {"prompt": "a?", "response": "b", "score": 1},
    "trl": lambda: {"step": 1, "prompt": "a?", "completion": "b", "advantage": 0.5},
    "alpaca-eval": lambda: {"instruction": "a?", "output": "b", "generator": "g"},
}


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("lm-eval", {"resps": None}, "resps hold no responses"),
        ("lm-eval", {"doc": "gone"}, "needs doc_id, doc"),
        ("batch", {"custom_id": "gone"}, "a batch's output needs custom_id"),
        ("batch", {"response": {"body": {"choices": []}}}, "the response has no choices"),
        ("plain", {"response": 7}, "a response must be a text, got 7"),
        ("plain", {"prompt": 7}, "a prompt must be a text or a list of messages, got 7"),
        ("plain", {"score": "good"}, "score must be a finite number or a truth value, got 'good'"),
        ("plain", {"score": [1, 2]}, "score has 2 entries for 1 responses"),
        ("plain", {"response": "gone"}, "a row needs prompt, response"),
        ("trl", {"completion": "gone"}, "TRL's completions need prompt, completion"),
        ("trl", {"prompt": [{"content": "x"}]}, "a message needs role and content"),
        ("trl", {"prompt": [{"role": "assistant", "content": "x"}]}, "the prompt has no user message"),
        ("alpaca-eval", {"output": {"type": "image_url"}}, "a content that is no text"),
        ("alpaca-eval", {"generator": "gone"}, "AlpacaEval's model outputs need"),
    ],
)
def test_a_bad_second_row_is_one_line_with_its_place(tmp_path, name, change, message):
    """A key that is missing ("gone"), or of another kind."""
    first, second = GOOD[name](), GOOD[name]() | change
    second = {key: value for key, value in second.items() if value != "gone"}
    for key in ("doc_id", "custom_id"):
        if key in second:
            second[key] = 1
    with pytest.raises(UserError) as error:
        formats.read(write(tmp_path / "some.jsonl", [first, second]))
    assert f"{tmp_path / 'some.jsonl'}:2: " in str(error.value) and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", GOOD)
def test_a_row_cut_in_half_and_another_encoding_are_named(tmp_path, name):
    line = json.dumps(GOOD[name]())
    path = tmp_path / "cut.jsonl"
    path.write_text(line + "\n" + line[: len(line) // 2])
    with pytest.raises(UserError, match=r"cut\.jsonl:2: malformed JSON"):
        formats.read(path)
    path.write_bytes((line + "\n").encode() + (line.replace('"2"', '"é"') + "é\n").encode("latin-1"))
    with pytest.raises(UserError, match=r"cut\.jsonl: not a UTF-8 text file"):
        formats.read(path)


STRANGE = (None, 7, -1.5, "x", [], {}, [None], [["a"]], {"a": 1}, True, float("nan"), "\ud800", [{"role": "user"}])


def places(made, path=()):
    """The path of every value of some JSON."""
    for key in made if isinstance(made, dict) else range(len(made)) if isinstance(made, list) else ():
        yield (*path, key)
        yield from places(made[key], (*path, key))


def test_whatever_stands_in_a_field_is_read_or_refused_in_one_line(tmp_path, monkeypatch):
    """400 files in which one value is another thing: never a traceback."""
    monkeypatch.setattr(inspect_log, "by_own_reader", lambda path: None)
    made = {name: [row(), row()] for name, row in GOOD.items()} | {"inspect": log(epochs=1)}
    made["lm-eval"][1]["doc_id"] = made["batch"][1]["custom_id"] = 1
    trials = [(name, path, value) for name, rows in made.items() for path in places(rows) for value in STRANGE]
    refused = 0
    for i in np.random.default_rng(0).choice(len(trials), 400, replace=False):
        name, path, value = trials[i]
        changed = json.loads(json.dumps(made[name]))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        file = tmp_path / ("x.json" if name == "inspect" else "x.jsonl")
        file.write_text(json.dumps(changed)) if name == "inspect" else write(file, changed)
        try:
            found = formats.read(file, name)
            assert isinstance(tables.check(found.run, "run"), pd.DataFrame)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(file) in str(error), (name, path, value)
    assert 50 < refused < 350


def test_identifiers_that_occur_twice(tmp_path):
    for name, key in (("lm-eval", "doc_id 0 twice"), ("batch", "custom_id 'a' again")):
        with pytest.raises(UserError, match=rf"some\.jsonl:2: {key}"):
            formats.read(write(tmp_path / "some.jsonl", [GOOD[name]()] * 2))
    rows = [{"id": "q", "prompt": "a?", "response": "b"}, {"id": "q", "prompt": "c?", "response": "d"}]
    with pytest.raises(UserError, match=r"some\.jsonl:2: another prompt under the identifier 'q' of .*:1"):
        formats.read(write(tmp_path / "some.jsonl", rows))
    made = log(epochs=1)
    made["samples"].append(made["samples"][0])
    path = tmp_path / "log.json"
    path.write_text(json.dumps(made))
    with pytest.raises(UserError):  # by inspect_ai's own reader, where it is installed, or by ours
        formats.read(path)


def test_a_file_of_no_format_says_what_it_has_and_what_would_do(tmp_path):
    path = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(UserError) as error:
        formats.read(path)
    said = str(error.value)
    assert said.startswith(f"{path}:1: of no known format; found: prompt, chosen, rejected; wanted: ")
    assert all(f"{name}: " in said for name in formats.FORMATS)
    with pytest.raises(UserError, match="--format 'lmeval': did you mean 'lm-eval'"):
        formats.read(path, "lmeval")
    with pytest.raises(UserError, match=r"pairs\.jsonl:1: a row needs prompt, response"):
        formats.read(path, "plain")
    with pytest.raises(UserError, match="--judged-by 'exact': .*known: score"):
        formats.read(write(tmp_path / "p.jsonl", [GOOD["plain"]()]), judged_by="exact")
    with pytest.raises(UserError, match="no such file"):
        formats.read(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no rows"):
        formats.read(write(tmp_path / "empty.jsonl", []))


@pytest.mark.parametrize("content", [b"PK\x03\x04 no zip", b""])
def test_a_damaged_eval_file_is_one_line(tmp_path, content):
    path = tmp_path / "log.eval"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"log\.eval"):
        formats.read(path)

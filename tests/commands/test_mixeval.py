"""`irlens mixeval` end to end: response files and runs in, the table out; a server that judges; files in and out again."""

import json
import shutil

import pandas as pd
import pytest

import irlens as package
from irlens.tasks import mixeval

CONTEXT = {"context": None}
FREE = [CONTEXT | {"problem_type": "free-form", "prompt": f"who is {i}?", "target": [f"name{i}"], "benchmark_name": "TriviaQA"} for i in range(6)]  # fmt: skip
CHOICE = [CONTEXT | {"problem_type": "multiple-choice", "prompt": f"which {i}?", "options": ["x", "y"], "target": [i % 2], "benchmark_name": "ARC"} for i in range(6)]  # fmt: skip
ROWS = {"free-form": [*FREE, FREE[0]], "multiple-choice": CHOICE}
NAMES = {"free-form": "freeform", "multiple-choice": "multichoice"}


@pytest.fixture
def version(tmp_path):
    folder = tmp_path / "mixeval-2024-06-01"
    for split in mixeval.SPLITS:
        (folder / split).mkdir(parents=True)
        for kind, rows in ROWS.items():
            some = rows if split == "mixeval" else rows[:3] * 2
            (folder / split / f"{kind}.json").write_text(json.dumps({str(i): row for i, row in enumerate(some)}))
    return folder


@pytest.fixture
def answered(version, tmp_path):
    """`answered(name, reply)`: a model's folder in the authors' layout; reply(item) is what it says."""

    def write(name, reply, splits=mixeval.SPLITS):
        for split in splits:
            folder = tmp_path / name / split.replace("-", "_") / "2024-06-01"
            folder.mkdir(parents=True)
            hard = "_hard" if split.endswith("hard") else ""
            for kind, short in NAMES.items():
                rows = [i for i in mixeval.read(version, split) if i.kind == kind]
                lines = [i.record | {"formated_input": i.prompt, "id": i.id, "response": reply(i)} for i in rows]
                text = "".join(json.dumps(line) + "\n" for line in lines)
                (folder / f"{name}_close_{short}{hard}.jsonl").write_text(text)
        return tmp_path / name

    return write


def right(item):
    return item.answers[0]


def table(folder):
    found = pd.read_csv(folder / "results.csv")
    return {(row.run, row.measure): row for row in found.itertuples()}


def test_two_systems_make_the_table_and_a_test(irlens, version, answered, tmp_path):
    good = answered("good", right)
    (good / "mixeval" / "2024-06-01" / "judge_results_mp_rule.jsonl").write_text("{}\n")  # the authors' own verdicts
    (good / "mixeval" / "2024-08-11").mkdir()
    (good / "mixeval" / "2024-08-11" / "good_close_freeform.jsonl").write_text("{}\n")
    poor = answered("poor", lambda item: "who knows" if item.id in ("0", "1") else right(item))
    done = irlens("mixeval", good, poor, "--dataset", f"mixeval:{version}", "--out", tmp_path / "out")
    assert "1 files are of other versions than mixeval-2024-06-01: left out" in done.stdout
    assert "good, MixEval: 13 items, 12 distinct; 0 responses say nothing" in done.stdout
    assert "poor, MixEval-Hard: 12 items, 6 distinct; 2 responses say nothing" in done.stdout
    assert "MixEval: poor less good" in done.stdout and "MixEval-Hard: poor less good" in done.stdout
    found = table(tmp_path / "out")
    assert found["good", "MixEval"].value == 1 and found["poor", "MixEval"].value == pytest.approx(9 / 13)
    assert (tmp_path / "out" / "mixeval.md").read_text().startswith("| system | MixEval | MixEval-Hard |")
    again = irlens("mixeval", good, poor, "--dataset", f"mixeval:{version}", "--out", tmp_path / "out")
    assert "nothing is made again" in again.stdout
    one = tmp_path / "out" / "systems" / "poor"
    measured = irlens("evaluate", one, one, "Success@1", "--out", tmp_path / "e")
    share = (found["poor", "MixEval"].value * 13 + found["poor", "MixEval-Hard"].value * 12) / 25
    assert f"{share:.3f}" in measured.stdout  # a run and its qrels, as every command reads them
    other = irlens("mixeval", good, "--dataset", version, "--out", tmp_path / "other")
    assert "good" in other.stdout
    compared = irlens("compare", tmp_path / "out", tmp_path / "other", "--measures", "MixEval", "--out", tmp_path / "c")
    assert "MixEval" in compared.stdout


def test_a_models_draws_go_in_and_out_as_response_files(irlens, version, tmp_path):
    args = ("--dataset", f"mixeval:{version}", "-n", 1, "--temperature", 0, "--max-tokens", 8)
    irlens("sample", *args, "--out", tmp_path / "drawn")
    irlens("mixeval", tmp_path / "drawn", "--out", tmp_path / "out")  # the folder says where the benchmark is
    first = table(tmp_path / "out")
    irlens("export", tmp_path / "drawn", "--to", "mixeval", "--out", tmp_path / "files")
    name = next(path for path in (tmp_path / "files").iterdir() if path.is_dir())
    assert sorted(path.name for path in name.rglob("*.jsonl")) == [
        f"{name.name}_close_{k}.jsonl" for k in NAMES.values()
    ]
    row = json.loads(next(name.rglob("*_close_freeform.jsonl")).read_text().splitlines()[0])
    assert row.keys() == {*FREE[0], "formated_input", "id", "response"} and row["formated_input"].startswith(
        "Question: who"
    )
    irlens("mixeval", name, "--dataset", version, "--out", tmp_path / "again")
    second = table(tmp_path / "again")
    assert [key[1] for key in first] == [key[1] for key in second]
    assert [row.value for row in first.values()] == [row.value for row in second.values()]
    done = irlens("import", next(name.rglob("*_close_multichoice.jsonl")), "--out", tmp_path / "in")
    assert "mixeval: 6 draws of 6 prompts" in done.stdout
    assert pd.read_parquet(tmp_path / "in" / "run.parquet")["answers"].map(list).tolist() == [["A"], ["B"]] * 3


def test_a_server_judges_what_is_unreadable_is_counted_and_what_is_kept_is_not_asked_again(
    irlens, version, answered, serve, tmp_path
):
    good = answered("good", right)
    args = ("mixeval", good, "--dataset", version, "--judge", "own", "--out", tmp_path / "out")
    url = serve(reply="it agrees: [[0.6]]")
    done = irlens(*args, "--base-url", url)
    assert "12 questions to the judge, about " in done.stdout  # copies are judged once
    found = table(tmp_path / "out")
    assert found["good", "MixEval free-form"].value == pytest.approx(0.6)
    assert found["good", "MixEval multiple-choice"].value == 0 and found["good", "MixEval"].unread == 6
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert told["judge"] == "own" and told["settings"]["asked"]["model"] == "stub"
    (tmp_path / "out" / "results.csv").unlink()
    shutil.rmtree(tmp_path / "out" / "systems")
    irlens(*args, "--base-url", serve(status=500, delay=9))  # a server that would answer nothing is not asked
    assert table(tmp_path / "out")["good", "MixEval"].value == found["good", "MixEval"].value


def test_a_question_that_is_refused_is_unjudged_and_asked_again(irlens, version, answered, serve, tmp_path):
    """A content filter is that question's affair: the others are judged, and the next start asks for it alone."""
    good = answered("good", lambda item: "awful" if "who is 3?" in item.prompt else right(item))
    args = ("mixeval", good, "--dataset", version, "--judge", "own", "--out", tmp_path / "out", "--store", "none")
    filtered = serve("commands/judge_server.py", filter="awful", verdict="so: [[0.5]] [[A]]")
    done = irlens(*args, "--base-url", filtered)
    assert "of 12 responses have no verdict (unreadable" not in done.stdout
    assert "1 of 12 responses have no verdict (refused 1): unread, they count 0" in done.stdout
    assert table(tmp_path / "out")["good", "MixEval"].unread == 1
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["refused"] == 1
    again = irlens(*args, "--base-url", serve("commands/judge_server.py", verdict="so: [[0.5]] [[A]]"))
    assert "1 questions to the judge, about " in again.stdout and "11 are answered already" in again.stdout
    assert table(tmp_path / "out")["good", "MixEval"].unread == 0


def test_the_cost_is_confirmed_above_a_limit(irlens, refused, version, answered, serve, tmp_path):
    """All systems' responses together, and each once: two systems with the same answers cost as one."""
    good, same = answered("good", right), answered("same", right)
    args = ("mixeval", good, same, "--dataset", version, "--judge", "own", "--out", tmp_path / "out", "--store", "none")
    args = (*args, "--base-url", serve(reply="[[0.6]]"), "--max-calls", 11, "--price", "10,30")
    line = refused(*args)
    assert "12 questions to the judge, about " in line and "at most about $" in line and "--yes asks them" in line
    irlens(*args, "--yes")
    assert table(tmp_path / "out")["same", "MixEval free-form"].value == pytest.approx(0.6)
    assert "two numbers from 0 on" in refused(*args[:-1], "10")


def test_a_judge_that_refuses_ends_in_one_line(irlens, refused, version, answered, serve):
    good = answered("good", right)
    args = ("mixeval", good, "--dataset", version, "--judge", "own")
    done = irlens(*args, "--base-url", serve(status=403), "--out", good.parent / "out", code=2)
    assert "irlens: " in (last := done.stderr.splitlines()[-1]) and "refused the key" in last
    assert "needs --base-url" in refused(*args)
    assert "templates.json: no such file" in refused(*args[:-1], "authors", "--base-url", "http://127.0.0.1:9")


def test_mistakes_are_refused_in_a_line(refused, version, answered, tmp_path):
    good = answered("good", right)
    files = sorted(good.rglob("*.jsonl"))
    data = ("--dataset", version)
    assert "name a run" in refused("mixeval", *data)
    assert "no such run, file or folder" in refused("mixeval", tmp_path / "none", *data)
    assert "two systems are called 'good'" in refused("mixeval", good, good, *data)
    assert "give --dataset" in refused("mixeval", good)
    assert "did you mean" in refused("mixeval", good, *data, "--judge", "rule")
    assert "at least 1" in refused("mixeval", good, *data, "--judge-rounds", 0)
    line = refused("mixeval", files[0], *data)
    assert "good: 6 of the 13 items of mixeval have no response (mixeval-2024-06-01/mixeval/multiple-choice/0" in line
    whole = files[0].read_text()
    files[0].write_text(whole[: len(whole) // 2])
    assert f"{files[0].name}:" in (line := refused("mixeval", good, *data)) and "malformed JSON" in line
    rows = [json.loads(line) for line in whole.splitlines()]
    files[0].write_text("".join(json.dumps(row) + "\n" for row in (*rows, rows[3])))
    assert "id '3' occurs again (first at" in refused("mixeval", good, *data)
    files[0].write_text("".join(json.dumps({k: v for k, v in row.items() if k != "response"}) + "\n" for row in rows))
    assert "responses need id, problem_type" in refused("mixeval", good, *data)
    files[0].write_text("".join(json.dumps(row | {"id": f"9{row['id']}"}) + "\n" for row in rows))
    assert "7 of 7 records (free-form/90, …) are not in mixeval-2024-06-01" in refused("mixeval", good, *data)
    files[0].write_text(whole)
    shutil.copy(files[0], files[0].with_name("copy_close_freeform.jsonl"))
    assert "has a response in two of its files (7 such items)" in refused("mixeval", good, *data)


def test_half_of_the_items_can_be_asked_for(irlens, version, answered, tmp_path):
    good = answered("good", right)
    file = next(good.rglob("good_close_freeform.jsonl"))
    done = irlens("mixeval", file, "--dataset", version, "--allow-missing", "--out", tmp_path / "out")
    assert "good, MixEval: 7 items, 6 distinct" in done.stdout and "6 without a response: left out" in done.stdout


def test_what_was_asked_of_a_base_model_holds_the_prompt_after_examples(irlens, version, answered, tmp_path):
    """The authors' code writes all of it, a line break at the end."""
    good = answered("base", right)
    for file in good.rglob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [row | {"formated_input": f"Question: an example\n\n{row['formated_input']}\n"} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    irlens("mixeval", good, "--dataset", version, "--out", tmp_path / "out")
    assert table(tmp_path / "out")["base", "MixEval"].value == 1


def test_systems_that_lack_other_items_are_tested_over_those_that_all_have(irlens, version, answered, tmp_path):
    good = answered("good", right, ["mixeval"])
    poor = answered("poor", lambda item: "who knows" if item.id == "3" else right(item), ["mixeval"])
    file = next(good.rglob("good_close_freeform.jsonl"))
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[2:]))
    told = ("--dataset", version, "--split", "mixeval", "--allow-missing")
    done = irlens("mixeval", good, poor, *told, "--out", tmp_path / "out")
    assert "tests: 1 items that some system lacks are left out" in done.stdout  # of the other a copy is answered
    found, tests = table(tmp_path / "out"), pd.read_csv(tmp_path / "out" / "tests.csv")
    assert found["good", "MixEval"].missing == 1 and found["poor", "MixEval"].missing == 0
    assert tests["n"].tolist() == [11] and tests["difference"].abs().iloc[0] == pytest.approx(2 / 12)


def test_the_published_version_with_its_gold_answers_scores_one(real_data):
    folder = real_data("mixeval/mixeval-2024-08-11")
    topics = package.load(folder).topics
    run = package.run(pd.DataFrame({"query_id": topics["query_id"], "text": topics["answers"].str[0]}))
    found = package.mixeval(run, folder).set_index("measure")
    assert found.loc["MixEval", ["value", "n", "distinct", "unread"]].tolist() == [1, 3995, 3189, 0]
    assert found.loc["MixEval-Hard", ["value", "n", "distinct"]].tolist() == [1, 1000, 823]
    assert (found["value"] == 1).all() and found.loc["MixEval", "low"] > 0.995

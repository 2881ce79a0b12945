"""`irlens compare` of models that draw first, by judges of texts, of best-of-n folders; its pages; what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.commands import competing, settings
from irlens.commands.best_of_n import best_of_n
from irlens.commands.compare import compare
from irlens.commands.compare_pages import latex, markdown
from irlens.commands.exchange import Compare
from irlens.commands.sample import sample
from irlens.rerank import judge_names
from irlens.retrieve.engines import Draw

PICKERS = ("oracle", "length", "random", "random per text")  # of a best-of-n by length
DRAWS = {"dataset": "sums", "limit": 8, "n": 2, "max_tokens": 16}


@pytest.fixture
def texts(tmp_path):
    """short and long: two draws of ten prompts each; nothing judges them, and their prompts are told."""
    made = []
    for name, word in (("short", "a"), ("long", "bbb")):
        rows = [(f"p{i}", f"ask {i}", f"{name} {i}/{d}", word * (i + d + 1), d) for i in range(10) for d in range(2)]
        frame = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "draw"])
        run = tables.run(frame.assign(score=-frame["draw"])).drop(columns="reward")
        files.write_parquet(run, tmp_path / name / "run.parquet")
        made.append(str(tmp_path / name))
    return made


# -- models that draw first ----------------------------------------------------------------------------------------


def test_models_draw_what_sample_draws_and_continue(shaken, tmp_path):
    asked = {"runs": ["tiny", str(shaken)], **DRAWS, "out": str(tmp_path / "c")}
    folder, values, tests = compare(Compare(**asked), str)
    assert set(values["run"]) == {"tiny", "shaken"}
    assert set(tests["measure"]) == {"Pass@1", "Pass@2"} and set(tests["n"]) == {8}
    for model in ("tiny", str(shaken)):
        alone, _ = sample(
            settings.Sample(model=model, **DRAWS, out=str(tmp_path / "alone" / model.rpartition("/")[2])), str
        )
        drawn = tables.read_run(folder / "draws" / alone.name)
        assert drawn["text"].tolist() == tables.read_run(alone)["text"].tolist()
    told = []
    compare(Compare(**asked), told.append)
    assert any("finished by this command before" in line for line in told)
    (folder / "values.csv").unlink()  # as if it had been killed before its end
    told.clear()
    _, again, _ = compare(Compare(**asked), told.append)
    pd.testing.assert_frame_equal(again, values)
    assert sum("nothing is made again" in line for line in told) == 2  # both draws were whole
    _, more, _ = compare(Compare(**asked | {"n": 3}), str)
    assert "Pass@3" in set(more["measure"])
    longer = tables.read_run(folder / "draws" / "tiny")
    assert (
        longer[longer["draw"] < 2].sort_values(["query_id", "draw"])["text"].tolist()
        == tables.read_run(tmp_path / "alone" / "tiny").sort_values(["query_id", "draw"])["text"].tolist()
    )


def test_a_model_beside_a_run_and_a_trained_folder(shaken, tmp_path):
    run, _ = sample(settings.Sample(**DRAWS, out=str(tmp_path / "mine")), str)
    trained = tmp_path / "trained"
    (trained / "iteration-1").mkdir(parents=True)
    (trained / "iteration-1" / "model").symlink_to(shaken)
    (trained / "chosen.json").write_text(json.dumps({"iteration": 1, "model": "moved/away"}))
    asked = Compare(runs=[str(run), "tiny", str(trained)], **DRAWS, baseline="mine", out=str(tmp_path / "c"))
    folder, values, tests = compare(asked, str)
    assert len(values) == 3 * 2 and set(tests["before"]) == {"mine"} and len(tests) == 2 * 2
    assert set(values["run"]) == {"mine", "tiny", "trained"}  # as they were named
    found = values.set_index(["measure", "run"])["value"]
    assert found["Pass@1", "mine"] == found["Pass@1", "tiny"]  # the same draws of the same model, by the same verifier
    assert set(values["group"]) <= {"", "*"} and "share a letter" not in (folder / "compare.md").read_text()


@pytest.mark.parametrize("args, message", [
    (["tiny", "tinny"], "tinny: no such run or folder, and no model of that name"),
    (["irlens-out/a", "irlens-out/b"], "irlens-out/a: no such run"),
    (["short", "long", "-n", "4"], "-n: for models that draw, and only runs are given"),
    (["short", "long", "--pairs", "2"], "--pairs: for a judge, and there is no --judge"),
    (["short", "long", "--judge", "tiny", "--measures", "Pass@1"], "gives win rates and no other values"),
    (["short", "long", "--judge", "tiny", "--reward", "fsfairx"], "one judge, not --reward and --judge"),
    (["short", "long", "--judge", "fsfairx"], "scores texts alone; --reward fsfairx"),
    (["short", "long", "--judge", "tinny"], "--judge tinny: no such judge; did you mean 'tiny'"),
    (["short", "long", "--judge", "tiny", "--baseline", "lang"], "the baseline 'lang' is no system here; did you mean 'long'"),
    (["tiny", "short", "--dataset", "prompts.jsonl"], "has no verifier, so the draws of tiny cannot be judged"),
    (["short", "values", "--judge", "tiny"], "holds values and no texts"),
    (["short", "long", "--reward", "nan_reward:nan"], "score not finite for query_id=p0"),
    (["values", "nan"], "Pass@1 of query_id=p0 is nan, not a finite number"),
])  # fmt: skip
def test_what_is_refused(texts, tmp_path, refused, monkeypatch, args, message):
    (tmp_path / "irlens-out").mkdir()
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "say"}\n' * 2)
    (tmp_path / "nan_reward.py").write_text("def nan(run):\n    return [float('nan')] * len(run)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in (("values", 1.0), ("nan", np.nan)):
        frame = pd.DataFrame({"query_id": ["p0", "p1"], "measure": "Pass@1", "value": [value, 0.0]})
        files.write_parquet(frame, tmp_path / name / "per_query.parquet")
    assert message in refused("compare", *args)


# -- judges of texts -----------------------------------------------------------------------------------------------


class Talker:
    """An engine that judges: prefers the longer answer, or says what it was told to say."""

    def __init__(self, says=None):
        self.says, self.asked = says, []

    def sample(self, prompts, draws, sampling):
        from tests_judgement import judgement

        self.asked += [prompt.text for prompt in prompts]
        said = [self.says or judgement([{"content": prompt.text}], "longer") for prompt in prompts]
        return [Draw(prompt.query_id, 0, text, 1, 0.0, "stop") for prompt, text in zip(prompts, said)]

    def close(self):
        self.closed = True


@pytest.fixture
def talker(monkeypatch):
    """Puts an engine in the place of a model's."""
    import importlib.util
    import sys
    from pathlib import Path

    script = Path(__file__).parents[1] / "retrieve" / "stub_server.py"
    spec = importlib.util.spec_from_file_location("tests_judgement", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "tests_judgement", module)

    def put(says=None):
        engine = Talker(says)
        monkeypatch.setattr("irlens.retrieve.engines.spread.opened", lambda *_: engine)
        return engine

    return put


def test_a_chat_model_of_this_machine_judges(texts, tmp_path, talker):
    engine = talker()
    folder, values, tests = compare(Compare(runs=texts, judge="tiny", out=str(tmp_path / "c")), str)
    rates = values[values["against"] == "short"].set_index("measure")["value"]
    assert rates["win rate"] == rates["discrete win rate"] == 1 > rates["length-controlled win rate"]
    assert values[values["against"] == ""].set_index("run")["group"].to_dict() == {"long": "a", "short": "b"}
    assert tests["p"].tolist() == [2 / 2**10] and len(tests) == 1
    assert len(engine.asked) == 10 * 2 and "ask 3" in engine.asked[6] and engine.closed
    kept = pd.read_parquet(folder / "preferences.parquet")
    assert (kept["preference"] == 1).all() and kept["length_after"].tolist() == [3.0 * (i + 1) for i in range(10)]
    page = (folder / "compare.md").read_text()
    assert (
        "| length-controlled win rate | long against short |" in page
        and "long against short" in (folder / "compare.tex").read_text()
    )


def test_a_judge_behind_a_server_and_its_answers_are_kept(texts, tmp_path, serve):
    asked = Compare(runs=texts, judge="pairwise", base_url=serve(reply="longer"), pairs=2, out=str(tmp_path / "c"))
    _, values, _ = compare(asked, str)
    assert (values[values["against"] == "short"]["n"] == 10).all()
    (tmp_path / "c" / "values.csv").unlink()
    from dataclasses import replace

    again = replace(asked, base_url=serve(reply="longer", die_after=1))  # its answers are here, so nobody is asked
    assert compare(again, str)[1]["value"].tolist() == values["value"].tolist()


def test_a_judge_at_a_server_is_named_as_in_winrate(texts, tmp_path, serve, refused):
    """--judge pairwise at --base-url, which is then the judge's alone; models beside it draw in this process."""
    told = ("compare", *texts, "--judge")
    assert "--judge pairwise needs --base-url" in refused(*told, "pairwise")
    line = refused(*told, "pairwise", "--base-url", serve(), "--engine", "openai")
    assert "draw by `irlens sample` first" in line
    assert "AlpacaEval's, which `irlens winrate` asks" in refused(*told, "weighted_alpaca_eval_gpt4_turbo")
    assert "did you mean 'pairwise'" in refused(*told, "pairwisee")
    assert "scores texts alone; --reward length" in refused(*told, "length")
    models = Compare(
        runs=[str(texts[0]), "tiny"], dataset="sums", limit=2, n=1, judge="pairwise", base_url=serve(reply="longer")
    )
    assert competing.drawing_alone(models).base_url is None and competing.judge_of(models).identity["judge"] == "stub"


def test_a_judge_that_says_nothing_and_one_that_sometimes_does(texts, tmp_path, talker):
    asked = Compare(runs=texts, judge="tiny", out=str(tmp_path / "c"))
    talker("banana")
    with pytest.raises(UserError, match="judge:tiny: none of its 20 answers could be read, asked twice each"):
        compare(asked, str)
    engine, told = talker(), []
    whole = engine.sample

    def half(prompts, draws, sampling):
        engine.says = "banana" if len(prompts) < 20 else None  # the second try
        found = whole(prompts, draws, sampling)
        return [Draw(d.query_id, 0, "banana" if i < 6 else d.text, 1, 0.0, "stop") for i, d in enumerate(found)]

    engine.sample = half
    _, values, _ = compare(Compare(runs=texts, judge="tiny", out=str(tmp_path / "half")), told.append)
    assert any(line.startswith("6 of 20 answers could not be read") for line in told)
    assert values[values["measure"] == "win rate"]["value"].tolist() == pytest.approx([0.85, 0.15, 0.85])


def test_pairrm_judges_pairs(texts, tmp_path, monkeypatch):
    """A judge whose scores hold within a list: what `irlens.reranker` gives for it is asked about two texts at a time."""
    from irlens.rerank import by_name
    from irlens.rerank.reranker import Prepared, Scores, Scoring

    asked = []

    def build(name, given):
        def prepare(run, _):
            asked.append((name, len(run), run["tag"].nunique()))
            return Prepared(lambda: Scores(run["text"].str.len().to_numpy(dtype=float)))

        return Scoring(name, prepare, given, relative=True)

    monkeypatch.setattr(by_name, "build", build)
    _, values, _ = compare(Compare(runs=texts, judge="pairrm", out=str(tmp_path / "c")), str)
    assert asked == [("pairrm", 20, 1)] and values[values["against"] == "short"]["value"].iloc[0] == 1
    names = {
        "owner/PairRM": "reward:owner/PairRM",
        "owner/chat": "judge:owner/chat",
        "pairwise": "judge",
        "pairrm": "pairrm",
    }
    assert {name: judge_names.reranker_name(name) for name in names} == names


def test_a_reward_of_ones_own_gives_win_rates_too(texts, tmp_path, monkeypatch):
    (tmp_path / "my_length.py").write_text("def score(run):\n    return run['text'].str.len()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder, _, tests = compare(Compare(runs=texts, reward="my_length:score", out=str(tmp_path / "c")), str)
    assert set(tests["measure"]) == {"Reward@1", "Reward@2", "win rate"}
    kept = pd.read_parquet(folder / "preferences.parquet").set_index("query_id")["preference"]
    expected = [np.mean([3 * (i + b + 1) > i + a + 1 for a in range(2) for b in range(2)]) for i in range(10)]
    assert [kept[f"p{i}"] for i in range(10)] == pytest.approx(expected)


# -- best of N -----------------------------------------------------------------------------------------------------


def test_folders_of_best_of_n(saved, tmp_path):
    """Each reranker of each folder is a system; the oracle of all right draws is above that of none right."""
    rights = {"x": [[1, 0, 1, 1]] * 11 + [[0, 0, 0, 1]], "y": [[0, 0, 0, 1]] * 12}
    made = []
    for name, right in rights.items():
        run = saved(tmp_path / name, right)
        made.append(
            str(best_of_n(settings.BestOfN(run=str(run), reranker="length", out=str(tmp_path / f"b{name}")), str)[0])
        )
    _, values, tests = compare(Compare(runs=made, measures="best-of-1 best-of-4", out=str(tmp_path / "c")), str)
    names = [f"{folder}: {who}" for folder in ("bx", "by") for who in PICKERS]
    assert set(values["run"]) == set(names) and set(values["measure"]) == {"best-of-1", "best-of-4"}
    found = values.set_index(["measure", "run"])["value"]
    assert found["best-of-4", "by: oracle"] == 1 and found["best-of-1", "by: random"] == pytest.approx(1 / 4)
    assert len(tests) == 2 * 28
    alone = compare(Compare(runs=made[:1], measures="best-of-4", baseline="bx: random", out=str(tmp_path / "d")), str)
    assert len(alone[2]) == 3 and set(alone[2]["before"]) == {"bx: random"}
    with pytest.raises(UserError, match="not all systems have best-of-5; did you mean"):
        compare(Compare(runs=made, measures="best-of-5", out=str(tmp_path / "never")), str)
    assert not (tmp_path / "never").exists()  # a mistake leaves nothing that refuses the command put right
    with pytest.raises(UserError, match=r"no measure in common \(bx: oracle: best-of-1.*x: Pass@1, Pass@4"):
        compare(Compare(runs=[made[0], str(tmp_path / "x")], out=str(tmp_path / "mixed")), str)


def test_a_folder_of_best_of_n_at_two_temperatures(saved, tmp_path):
    run = tables.read_run(saved(tmp_path / "x", [[1, 0, 1, 0]] * 12))
    heats = np.where(run["draw"] < 2, 0.5, 1.0)
    files.write_parquet(
        run.assign(temperature=heats, tag=[f"m T={t:g}" for t in heats]), tmp_path / "x" / "run.parquet"
    )
    folder, _ = best_of_n(settings.BestOfN(run=str(tmp_path / "x"), reranker="length", out=str(tmp_path / "b")), str)
    _, values, _ = compare(Compare(runs=[str(folder)], measures="best-of-2", out=str(tmp_path / "c")), str)
    assert set(values["run"]) == {f"b: {who}, m T={t}" for who in PICKERS for t in ("0.5", "1")}


def test_a_folder_of_recall_is_compared_by_its_values(tmp_path):
    """Its run has a tag per retriever, and several judgements, so that none lies beside it as the run's own."""
    from irlens.commands.recall import recall

    folder, _ = recall(settings.Recall(retriever="bm25,tiny-e5", limit=20, at=(1, 5), out=str(tmp_path / "r")), str)
    _, values, _ = compare(Compare(runs=[str(folder)], measures="Success@5", out=str(tmp_path / "c")), str)
    assert {name.partition(": ")[2].partition(",")[0] for name in values["run"]} == {"bm25", "tiny-e5"}


# -- pages ---------------------------------------------------------------------------------------------------------


def test_names_are_printed_as_they_are_written():
    """Every letter that LaTeX or Markdown reads as markup, in every cell that holds a name."""
    odd = r"a_b&c%d#e$f{g}h~i^j\k|l<m>n*o`p[q]"
    row = {
        "measure": odd,
        "run": odd,
        "against": odd,
        "value": 0.5,
        "se": np.nan,
        "low": np.nan,
        "high": np.nan,
        "n": 1,
    }
    values = pd.DataFrame([{**row, "group": "a"}])
    test = {"before": odd, "after": odd, "measure": odd, "difference": 0.1, "low": -1, "high": 1, "p_holm": 1.0,
            "effect": np.inf, "detectable": np.inf, "n": 1}  # fmt: skip
    table = latex(values).splitlines()[4]
    told = r"a\_b\&c\%d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k\textbar{}l\textless{}m\textgreater{}n*o`p[q]"
    assert table == rf"{told} & {told} against {told} & $0.500^{{a}}$ & -- & -- & 1 \\"
    page = markdown(values, pd.DataFrame([test]), baseline=odd)
    told = r"a\_b\&c%d\#e\$f{g}h\~i^j\\k\|l\<m\>n\*o\`p\[q\]"
    assert page.count(told) == 3 + 3 + 1 and odd not in page
    cells = [re.split(r"(?<!\\)\|", line) for line in page.splitlines() if line.startswith("|")]
    assert {len(line) for line in cells[:3]} == {9} and {len(line) for line in cells[3:]} == {11}
    assert "| +∞ | none |" in page and "| – | – |" in page

"""Chat evaluation in recipes: which judge each table has, what is refused before training, and the way from draws to
tables that name their judge, with a stand-in of the server."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.commands.chat import WinRate
from irlens.commands.settings import Sample, Train
from irlens.reproduce import chat, costs, judged, judges, kept, recipe, run
from irlens.reproduce import study as studies
from irlens.reproduce.records import Done, Recipe, Step, Study
from irlens.reproduce.rehearsal import cut, furnish, stub_judge
from irlens.rerank import mixeval_judge, pair_protocols
from irlens.tasks import stand_ins

GPT4, LLAMA3 = "alpaca_eval_gpt4_turbo_fn", "alpaca_eval_llama3_70b_fn"
JUDGED = {"table2": GPT4, "table3": GPT4, "table4": LLAMA3, "table5": LLAMA3, "fig3b": LLAMA3, "fig3c": LLAMA3,
          "fig4": LLAMA3}  # fmt: skip

RECIPE = """
title = "Two arms, judged"
[study]
claim = "b is better"
measure = "LCWinRate"
temperature = 0.7
better = ["b > a"]
beside = "table3"
column = "alpacaeval2_gpt4_lc_wr"
group = "Gemma2-2b-it"
[shared.tiny]
stage = "train"
prompts = 4
[[preset.tiny]]
name = "a"
[[preset.tiny]]
name = "b"
[[chat.tiny]]
answers = {{ dataset = "{here}/prompts.jsonl", temperature = [0.7], max_tokens = 40 }}
[chat.tiny.winrate]
judge = "{judge}"
baseline = "{here}/base.json"
resamples = 10
[[chat.tiny]]
answers = {{ dataset = "mixeval", temperature = [0.0], max_tokens = 20 }}
mixeval = {{ judge = "rules" }}
"""
PROMPTS = [f"Tom has {i} pens and buys {i + 2} more. How many has he?" for i in range(8)]


@pytest.fixture
def made(tmp_path):
    """Writes a recipe with these words in it; returns its path."""

    def make(judge="pairwise", text=RECIPE):
        rows = [{"instruction": text, "output": f"It is {i}.", "generator": "base"} for i, text in enumerate(PROMPTS)]
        (tmp_path / "base.json").write_text(json.dumps(rows))
        (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
        (tmp_path / "mine.toml").write_text(text.format(here=tmp_path, judge=judge))
        return tmp_path / "mine.toml"

    return make


@pytest.fixture
def trained(monkeypatch, shaken):
    """Training in no time: arm a keeps the start, b becomes another model."""

    def train(settings, say):
        from pathlib import Path

        from irlens.models import catalog

        out = Path(settings.out)
        (out / "evaluation" / "0").mkdir(parents=True, exist_ok=True)
        each = pd.DataFrame({"query_id": ["q0", "q1"], "Pass@1": [0.0, 1.0]})
        each.to_parquet(out / "evaluation" / "0" / "per_query.parquet")
        model = str(shaken) if out.name.endswith("-b") else catalog.model("tiny").repo
        (out / "chosen.json").write_text(json.dumps({"iteration": 0, "model": model}))
        (out / "manifest.json").write_text("{}")
        return out, None

    monkeypatch.setitem(run.COMMANDS, "train", train)


# -- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JUDGED)
def test_every_table_of_win_rates_ends_in_them_by_the_papers_judge(name):
    """Before, preset paper ended in the reward model's own win rate on held-out prompts."""
    for preset in recipe.presets(name):
        loaded = recipe.load(name, preset)
        judging = {arm: (step, draws) for step, arm, draws in chat.of(loaded.steps)}
        if preset == "tiny":
            assert not judging
            continue
        arms = [step.name for step in loaded.steps if step.stage == "train"]
        assert list(judging) == ["start", *arms] and loaded.study.measure == "LCWinRate"
        for arm, (step, draws) in judging.items():
            assert step.settings.judge == JUDGED[name] and step.settings.outputs == f"@answers {arm}"
            assert draws.model == (loaded.steps[0].settings.model if arm == "start" else f"@{arm}")
            assert (draws.dataset, draws.n, draws.temperature, draws.max_tokens) == ("alpacaeval", 1, (0.7,), 2048)
            assert {step.settings.baseline, step.settings.difficulty, step.settings.gamed} == {"alpacaeval"}
        shown = [judged.theirs(loaded, "LCWinRate", arm) for arm in ("start", *arms)]
        assert sum(value == value for value in shown) >= 3  # NaN where the paper has no such row


def test_mixeval_is_a_stage_where_its_folder_is_named():
    plain, more = recipe.load("table3", "paper"), recipe.load("table3", "paper", "mixeval")
    assert "--mixeval FOLDER" in plain.left_out and not more.left_out
    names = [step.name for step in more.steps if step not in plain.steps]
    assert names[:2] == ["mixeval-answers start", "mixeval start"] and len(names) == 10
    assert ("MixEval-Hard", 0.0) in chat.measured(more.steps)
    assert judged.theirs(more, "MixEval-Hard", "listmle") == 0.3560
    assert judged.theirs(more, "LCWinRate", "start") == pytest.approx(0.3639)


def test_the_papers_numbers_of_a_figure_are_at_its_places():
    loaded = recipe.load("fig3c", "paper")
    assert judged.theirs(loaded, "LCWinRate", "c8") == pytest.approx(0.5521)
    assert judged.theirs(loaded, "WinRate", "c8") == pytest.approx(0.6488)
    assert np.isnan(judged.theirs(loaded, "WinRate", "start"))


@pytest.mark.parametrize("old, new, words", [
    ("[chat.tiny.winrate]", "[chat.tiny.passk]", "entry 1: unknown key 'passk'"),
    ("max_tokens = 40 }}", "max_tokens = 40, n = 2 }}", "entry 1: answers: one draw per prompt is judged"),
    ("max_tokens = 40 }}", "max_tokens = 40, model = 'tiny' }}", "`model` is given by the recipe's arms"),
    ('measure = "LCWinRate"', 'measure = "Arena"', "not measured by Arena"),
    ("[[chat.tiny]]\nanswers = {{ dataset = \"mixeval\"", "[[chat.other]]\nanswers = {{ dataset = \"mixeval\"",
     "chat.other: no such preset"),
    ("mixeval = {{ judge = \"rules\" }}", "winrate = {{ judge = \"length\" }}", "two entries make 'answers start'"),
])  # fmt: skip
def test_a_damaged_entry_is_named(made, old, new, words):
    assert old in RECIPE
    with pytest.raises(UserError, match=words) as error:
        recipe.load(str(made(text=RECIPE.replace(old, new))), "tiny", "mixeval")
    assert "\n" not in str(error.value)


# -- refused before anything is trained ----------------------------------------------------------------------------


@pytest.mark.parametrize("judge, more, words", [
    ("pairwise", {}, "winrate: --judge pairwise needs --base-url"),
    ("pairwise", {"base_url": "http://127.0.0.1:9/v1"}, "winrate: .*127.0.0.1:9"),
    ("pairwise", {"judge": "pairrmm", "baseline": "nobody.json"}, "winrate: --judge pairrmm: .*did you mean 'pairrm'"),
    (LLAMA3, {"template": "none.txt"}, "winrate: --template none.txt: cannot be read"),
    ("length", {"baseline": "nobody.json"}, "winrate: --baseline nobody.json: no such file"),
])  # fmt: skip
def test_a_judge_that_is_not_to_be_had_is_refused_before_training(made, tmp_path, monkeypatch, judge, more, words):
    def train(settings, say):
        raise AssertionError("it trains")

    monkeypatch.setitem(run.COMMANDS, "train", train)
    loaded = chat.told(recipe.load(str(made()), "tiny"), {"judge": judge}, {})
    steps = [replace(s, settings=replace(s.settings, **more)) if s.stage == "winrate" else s for s in loaded.steps]
    with pytest.raises(UserError, match=words) as error:
        run.run(replace(loaded, steps=tuple(steps)), tmp_path / "out", lambda line: None, jobs=1)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_template_that_is_not_installed_is_refused(made, monkeypatch):
    monkeypatch.setattr(pair_protocols, "find_spec", lambda name: None)
    loaded = chat.told(recipe.load(str(made()), "tiny"), {"judge": GPT4, "base_url": "http://127.0.0.1:9/v1"}, {})
    with pytest.raises(UserError, match="pip install --no-deps alpaca-eval"):
        judges.check(loaded, 1, str)


def test_questions_of_all_arms_and_seeds_are_counted_and_confirmed(made):
    said = []
    loaded = recipe.load(str(made()), "tiny")
    with stub_judge.serving() as url:
        asking = replace(loaded, steps=tuple(stub_judge.told(loaded.steps, url, made().parent)))
        judges.check(asking, 1, said.append)
        few = {"max_calls": 20, "yes": False}
        with pytest.raises(UserError, match=r"2,415 questions .*more than --max-calls 20; --yes"):
            judges.check(chat.told(asking, {}, few), 1, said.append)
    assert said[0] == "winrate: judged by pairwise (judge)" and "price not known (--price)" in said[1]


def test_words_about_a_judge_reach_every_step_and_are_refused_where_there_is_none(made):
    told = chat.told(recipe.load("table4", "paper"), {"judge": "fsfairx", "price": (10.0, 30.0)}, {"yes": True})
    judging = [step.settings for step in told.steps if step.stage == "winrate"]
    assert len(judging) == 5
    assert all((s.judge, s.price, s.yes, s.max_calls) == ("fsfairx", (10.0, 30.0), True, 1000) for s in judging)
    with pytest.raises(UserError, match="--judge: table4, preset tiny, asks no judge"):
        chat.told(recipe.load("table4", "tiny"), {"judge": "fsfairx", "template": None}, {})


def test_an_unknown_judge_is_refused_before_anything_else_is_looked_at():
    """Before the baseline, which is the hub's, and before a rehearsal begins."""
    with pytest.raises(UserError, match="^--judge nobody: no such judge; known: "):
        chat.told(recipe.load("table3", "paper"), {"judge": "nobody"}, {})


# -- costs ---------------------------------------------------------------------------------------------------------


def test_what_judges_are_asked_is_counted_by_hand():
    draws = Step("sample", "answers start", Sample(model="gemma2-2b-it", dataset="alpacaeval", n=1))
    loaded = recipe.load("table5", "paper")
    one = next(step for step in loaded.steps if step.stage == "winrate")

    def cost(**more):
        return costs.of_steps([draws, replace(one, settings=replace(one.settings, **more))])

    drawn, asked = cost()
    assert (drawn.draws, drawn.generated) == (805, 805 * 512)
    assert (asked.asked, asked.judge_reads, asked.judge_writes) == (805, 805 * (300 + 41 + 2 * 512), 805 * 100)
    assert asked.dollars is None and "price not known" in costs.in_words(asked)
    dear = cost(price=(10.0, 30.0), both_orders=True)[1]
    assert dear.dollars == pytest.approx(1610 * (1365 * 10 + 100 * 30) / 1e6) and "$26.81" in costs.in_words(dear)
    reward = cost(judge="fsfairx")[1]
    assert reward.asked == 0 and reward.read == 2 * 805 * (41 + 512)
    assert reward.gpu_hours == pytest.approx(2 * 7_504_928_768 * reward.read / 0.4 / 989e12 / 3600)
    both = costs.total([asked, dear])
    assert both.dollars is None and both.asked == 805 * 3


# -- the whole way -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_draws_to_tables_that_name_their_judge_and_on_after_an_interrupt(made, tmp_path, trained, monkeypatch):
    """The judge goes away after twelve questions; the same command asks the rest, and none of them twice; another judge
    of the same policies needs no other folder."""
    stand_ins.write_mixeval(tmp_path / "mixeval")
    loaded = recipe.load(str(made()), "tiny", str(tmp_path / "mixeval"))
    answered, most, out, said = [], [12], tmp_path / "out", []
    answer = stub_judge._Handler.do_POST

    def until_gone(handler):
        if len(answered) < most[0]:
            answered.append(handler.path)
            return answer(handler)
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.send_response(401)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def go():
        with stub_judge.serving() as url:
            steps = [
                replace(s, settings=replace(s.settings, concurrency=1)) if s.stage == "winrate" else s
                for s in stub_judge.told(loaded.steps, url, tmp_path)
            ]
            return run.run(replace(loaded, steps=tuple(steps)), out, said.append, jobs=1, store="none")

    monkeypatch.setattr(stub_judge._Handler, "do_POST", until_gone)
    with pytest.raises(UserError, match="the answers so far are kept"):
        go()
    assert len(answered) == 12 and not (out / "judged.csv").exists()
    most[0] = 1000
    go()
    journals = [path.read_text().splitlines() for path in out.glob("*-winrate-*/answers.jsonl")]
    assert len(journals) == 3 and sum(map(len, journals)) == len(answered) > 12
    count = len(answered)
    go()
    assert len(answered) == count  # finished: nobody is asked
    _check_tables(out, said)
    draws = (out / "3-answers-start" / "run.parquet").stat().st_mtime_ns
    other = chat.told(loaded, {"judge": "length"}, {})
    run.run(other, out, said.append, jobs=1, store="none")  # the same policies by another judge, in the same folder
    assert set(pd.read_csv(out / "judged.csv").query("measure == 'LCWinRate'")["judge"]) == {"length"}
    assert draws == (out / "3-answers-start" / "run.parquet").stat().st_mtime_ns
    assert len(list(out.glob("*-winrate-*/answers.jsonl"))) == 3 and len(answered) == count


def _check_tables(out, said):
    """Every table and the figure name the judge; the paper's numbers stand beside; tests pair the arms."""
    name = "pairwise (judge)"
    found = pd.read_csv(out / "judged.csv").set_index(["arm", "measure"])
    assert found.loc[("start", "LCWinRate"), "paper"] == pytest.approx(0.3639)
    assert found.loc[("a", "MixEval"), "judge"] == "rules" and found.loc[("a", "WinRate"), "judge"] == name
    assert (found.xs("WinRate", level="measure")["n"] == 8).all() and np.isfinite(found["standard_error"]).all()
    told = pd.read_csv(out / "4-winrate-start-pairwise" / "results.csv").set_index("measure")["value"]
    for measure in ("LCWinRate", "WinRate"):
        assert found.loc[("start", measure), "value"] == pytest.approx(told[measure])
        assert found.loc[("a", measure), "value"] == pytest.approx(told[measure])  # a is the start
    for file in ("tests.csv", "tests-WinRate.csv"):
        tests = pd.read_csv(out / file)
        assert set(tests["judge"]) == {name} and ["a", "b"] in tests[["before", "after"]].values.tolist()
    page = (out / "judged.md").read_text()
    assert f"LC win rate (judge: {name})" in page and f"the paper's judge: {GPT4}" in page
    assert f"judged by {name}" in (out / "conclusions.md").read_text()
    assert set(pd.read_csv(out / "arms.csv").query("measure == 'WinRate'")["judge"]) == {name}
    assert any(f"judged by {name}" in line for line in said)
    account = json.loads((out / "manifest.json").read_text())
    assert account["calls"] > 0 and account["status"] == "complete"


def test_figures_name_the_judge_on_their_axes(tmp_path, monkeypatch):
    """Ours is in points of 100 as the paper's, both win rates on an axis."""
    from irlens.measure.plots import panels
    from irlens.reproduce import figures

    drawn = []
    monkeypatch.setattr(panels, "panels", lambda parts, *a, **k: drawn.extend(parts))
    rows = [("start", "LCWinRate", 0.7, "J", 0.1, 0.0, 0.2, 5), ("c4", "LCWinRate", 0.7, "J", 0.5, 0.4, 0.6, 5)]
    rows += [("start", "WinRate", 0.7, "J", 0.1, 0.0, 0.2, 5), ("c4", "WinRate", 0.7, "J", 0.4, 0.3, 0.5, 5)]
    table = pd.DataFrame(rows, columns=["arm", "measure", "temperature", "judge", "value", "low", "high", "n"])
    train = Step("train", "c4", Train())
    axis = Study("c", "axis", "LCWinRate", 0.7, x=(4.0,), x_label="candidates", beside="3c")
    bars = Study("c", "bars", "LCWinRate", 0.7, beside="table3", column="alpacaeval2_gpt4_lc_wr")
    for study in (axis, bars):
        figures.draw(Recipe("r", "R", None, "tiny", (train,), study), table, None, {}, tmp_path / "r", "screen")
    ours, theirs, bar, paper = drawn
    assert "judge: J" in ours.y_label and "judge: J" in bar.x_label
    assert ours.table["curve"].tolist() == ["LC win rate", "win rate"] and ours.table["value"].tolist() == [50.0, 40.0]
    assert bar.table["value"].tolist() == [10.0, 50.0]
    assert "not named" in theirs.title and f"judge: {GPT4}" in paper.x_label


def test_prompts_that_some_arm_has_no_verdict_on_are_left_out_of_all_and_said(tmp_path):
    loaded = Recipe("r", "R", None, "tiny", (Step("train", "a", Train(eval_temperature=(0.7,))),),
                    Study("c", measure="WinRate", temperature=0.7))  # fmt: skip
    entry = {"answers": {"dataset": "sums", "temperature": [0.7]}, "winrate": {"judge": "length", "baseline": "b"}}
    loaded = replace(loaded, steps=(*loaded.steps, *chat.steps(loaded.steps, [entry], None, "here")))
    found = {}
    for arm, missing in (("start", "q3"), ("a", "q5")):
        folder = tmp_path / arm
        folder.mkdir()
        each = pd.DataFrame({"query_id": [f"q{i}" for i in range(8)], "run": "x", "measure": "WinRate"})
        each = each.assign(value=np.arange(8) / 7)[lambda some, gone=missing: some["query_id"] != gone]
        each.to_parquet(folder / "per_query.parquet")
        found[f"winrate {arm}"] = Done(folder, pd.DataFrame({"judge": ["J"]}))
    table = chat.cells(loaded, [found])
    assert kept.without(table) == {"WinRate": 2} and kept.judges(table) == {"WinRate": "J"}
    values = kept.finals(table)
    assert values["a"]["WinRate", 0.7].tolist() == [[i / 7 for i in (0, 1, 2, 4, 6, 7)]]
    said = studies.report(loaded, table, tmp_path, lambda line: None)
    assert any("WinRate: 2 prompts are left out of all arms" in line for line in said)


# -- the stand-in of a judge ---------------------------------------------------------------------------------------


def test_the_stand_in_answers_in_every_protocols_form():
    """Each reader reads it, either way for different questions and the same way for the same one."""
    for name, published in pair_protocols.PUBLISHED.items():
        read = pair_protocols.READERS[published.reader]
        values = [read(stub_judge.choice(published.reader, f"question {i}")) for i in range(20)]
        assert all(value is not None and 1 <= value <= 2 for value in values), name
        assert min(values) < 1.5 < max(values)
    assert stub_judge.choice("letter", "x") == stub_judge.choice("letter", "x")
    said = stub_judge.choice(stub_judge.MIXEVAL, "x")["message"]["content"]
    assert mixeval_judge.read_letter(said) in "AB" and 0 <= mixeval_judge.read_score(said) <= 1


@pytest.mark.parametrize("judge, becomes, model, told", [
    (GPT4, GPT4, [], "at a server: a stand-in here answers"),
    ("fsfairx", "fsfairx", [("fsfairx", "reward")], ""),
    ("reward:c/d", "reward:c/d", [("c/d", "reward")], ""),
    ("mistral-7b-it", "length", [], "mistral-7b-it, of which there is no stand-in: the longer answer wins"),
    (__file__, "length", [], "of which there is no stand-in"),
])  # fmt: skip
def test_what_a_rehearsal_makes_of_a_judge(judge, becomes, model, told, monkeypatch):
    monkeypatch.setattr(pair_protocols, "find_spec", lambda name: None)
    step = Step("winrate", "winrate a", WinRate(outputs="@answers a", judge=judge, baseline="alpacaeval"))
    found = cut.step(step)
    small = found.step.settings
    assert (small.judge, small.resamples, small.allow_missing, small.prompts) == (becomes, 20, True, None)
    assert [pair for pair in furnish.named(step) if pair[0]] == model
    words = "; ".join(found.not_rehearsed)
    assert told in words and ("ours in their place" in words) == (judge == GPT4) and bool(words) == bool(told)
    placed = furnish.replaced(step, {"c/d": "/there"}).settings.judge
    assert placed == ("reward:/there" if judge == "reward:c/d" else judge)


@pytest.mark.slow
@pytest.mark.parametrize("judge", [GPT4, "weighted_alpaca_eval_gpt4_turbo", "fsfairx"])
def test_a_rehearsal_takes_the_whole_way(judge, tmp_path, irlens):
    """Offline, with stand-ins of the policy, the reward model, AlpacaEval's files, MixEval and the judge."""
    (tmp_path / "few.toml").write_text(
        'like = "table3"\n[[preset.paper]]\nname = "pairwise"\nobjective = "pairwise"\nn = 2\n'
        '[[preset.paper]]\nname = "listmle"\nobjective = "listmle"\nn = 4\n[study]\nbetter = ["listmle > pairwise"]\n'
    )
    command = ("reproduce", tmp_path / "few.toml", "--preset", "paper", "--rehearse", "--judge", judge)
    irlens(*command, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "rehearsal.md").read_text()
    assert "| winrate listmle | yes |" in page and "| mixeval listmle | yes |" in page
    assert ("a stand-in here answers by a digest" in page) == (judge != "fsfairx")
    found = pd.read_csv(tmp_path / "out" / "run" / "judged.csv")
    assert set(found[found["measure"] == "LCWinRate"]["judge"]) == {judge}
    assert set(found["measure"]) == {"LCWinRate", "WinRate", "MixEval", "MixEval-Hard"}

"""The command judges: its folder, sets of every kind, judges asked again, rerankers, what is refused, broken or killed."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

N = 20
SYSTEMS = ("a", "b")


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def notes(judge, prefer, prompts=N, systems=SYSTEMS):
    """Annotations of some systems' answers, of which every other is longer than the baseline's."""
    return [
        {"instruction": f"Question {i}?", "output_1": "y" * 20, "generator_1": "base", "generator_2": system, "annotator": judge,
         "output_2": f"{system}" * (10 + 20 * ((i + s) % 2) + i % 3), "preference": prefer(i, s)}
        for s, system in enumerate(systems) for i in range(prompts)
    ]  # fmt: skip


@pytest.fixture
def sets(tmp_path):
    """Two files of judges who differ in every fifth prompt."""
    first = write(tmp_path / "first.json", notes("one", lambda i, s: 1 + (i + s) % 2))
    second = write(tmp_path / "second.json", notes("two", lambda i, s: 1.5 if i % 5 == 0 else 1 + (i + s) % 2))
    return [first, second]


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of the time of so small a comparison, and are another test's."""
    monkeypatch.setattr("irlens.commands.judges_pages.draw", lambda tables, out: None)


def table(folder, name):
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])


def values(folder, name, **where):
    found = table(folder, name)
    for key, wanted in where.items():
        found = found[found[key] == wanted]
    return found.set_index("measure")["value"].to_dict()


def test_its_folder(sets, irlens, tmp_path):
    """Tables, page and figures, none over another; the same command again makes nothing; as from Python."""
    import irlens as package

    done = irlens(
        "judges", *sets, "--judge", "length", "--resamples", 50, "--measures", "nDCG", "--out", tmp_path / "out"
    )
    assert "Agreement of judges" in done.stdout and "0.800 [" in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {f"figure-{name}.{form}" for name in ("agreement", "bias", "length", "rankings-one", "rankings-two")
               for form in ("png", "pdf", "csv")}  # fmt: skip
    tables = {
        "judges.csv",
        "agreement.csv",
        "bias.csv",
        "lengths.csv",
        "rankings.csv",
        "per_query.parquet",
        "judges.md",
    }
    assert figures | tables <= names
    told = values(tmp_path / "out", "agreement", judge="one", against="two")
    assert told["agreement"] == pytest.approx(0.8) and 0.6 < told["kappa"] < 0.8
    page = (tmp_path / "out" / "judges.md").read_text()
    assert "| one | two | 0.800 [" in page and "| length | one |" in page
    again = irlens(
        "judges", *sets, "--judge", "length", "--resamples", 50, "--measures", "nDCG", "--out", tmp_path / "out"
    )
    assert "nothing is made again" in again.stdout and "0.800 [" in again.stdout
    python = package.judges(
        {p.stem: json.loads(p.read_text()) for p in sets}, ["length"], resamples=50, measures="nDCG"
    )
    for name in ("agreement", "bias", "lengths", "rankings"):
        ours = pd.DataFrame(getattr(python, name)).fillna({"against": ""}).reset_index(drop=True)
        pd.testing.assert_frame_equal(table(tmp_path / "out", name).fillna({"against": ""}), ours, check_dtype=False)


@pytest.mark.slow
def test_rankings_go_on_to_compare_and_figures_to_plot(sets, irlens, tmp_path):
    irlens("judges", *sets, "--judge", "length", "--resamples", 0, "--out", tmp_path / "out")
    irlens(
        "compare",
        tmp_path / "out",
        "--measures",
        "nDCG",
        "--baseline",
        "out: chance by one",
        "--out",
        tmp_path / "tests",
    )
    tests = pd.read_csv(tmp_path / "tests" / "tests.csv").set_index("after")
    assert tests.loc["out: oracle by one", "difference"] > 0 and (tests["n"] == N).all()
    irlens("plot", tmp_path / "out" / "figure-length.csv", "--out", tmp_path / "plot")
    assert (tmp_path / "plot" / "figure-length.png").is_file()


def test_sets_of_every_kind(sets, irlens, undrawn, tmp_path):
    """A folder of winrate, a folder of annotations, graded lists with a baseline: pairs are joined by their texts."""
    folder = tmp_path / "results"
    for system in SYSTEMS:
        (folder / system).mkdir(parents=True)
        some = [row for path in sets for row in json.loads(path.read_text()) if row["generator_2"] == system]
        write(folder / system / "annotations.json", some[::-1])
    irlens("judges", folder, "--resamples", 0, "--out", tmp_path / "out")
    assert values(tmp_path / "out", "agreement", judge="two")["agreement"] == pytest.approx(0.8)
    rows = json.loads(sets[0].read_text())
    lists = {}
    for row in rows:
        told = lists.setdefault(
            row["instruction"], {"prompt": row["instruction"], "baseline": row["output_1"], "candidates": []}
        )
        grade = {"system": row["generator_2"], "response": row["output_2"], "win_probability": row["preference"] - 1}
        told["candidates"].append(grade)
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists.values()))
    irlens("winrate", tmp_path / "lists.jsonl", "--judge", "length", "--resamples", 0, "--out", tmp_path / "won")
    done = irlens(
        "judges", tmp_path / "lists.jsonl", tmp_path / "won", sets[1], "--resamples", 0, "--out", tmp_path / "all"
    )
    assert set(table(tmp_path / "all", "judges")["judge"]) == {"lists", "length", "two"} and "tau" in done.stdout
    assert values(tmp_path / "all", "agreement", judge="lists", against="two")["agreement"] == pytest.approx(0.8)
    shown = table(tmp_path / "all", "judges").set_index("judge")["shown"]
    assert shown["length"] == 0 and shown["two"] == N * 2


# -- judges that are asked -----------------------------------------------------------------------------------------


@pytest.fixture
def contest(tmp_path):
    """A contest of one system, half of whose answers are longer than the baseline's."""
    for name, length in (("base", lambda i: 50), ("mine", lambda i: 80 if i % 2 else 20)):
        rows = [{"instruction": f"Question {i}?", "output": "x" * length(i), "generator": name} for i in range(N)]
        write(tmp_path / f"{name}.json", rows)
    return ["winrate", tmp_path / "mine.json", "--baseline", tmp_path / "base.json", "--resamples", 0]


def test_a_judge_that_is_asked_again(contest, serve, irlens, undrawn, tmp_path):
    """`winrate --repeats` asks every order as often, each time with a seed of its own; `judges` says how consistent it is."""
    log = tmp_path / "questions.jsonl"
    asked = ["--judge", "pairwise", "--base-url", serve("commands/judge_server.py", log=str(log))]
    done = irlens(*contest, *asked, "--both-orders", "--repeats", 3, "--out", tmp_path / "thrice")
    assert f"{6 * N} questions to the judge" in done.stdout
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(told) == 6 * N and len({json.dumps(question, sort_keys=True) for question in told}) == 6 * N
    rows = pd.read_parquet(tmp_path / "thrice" / "judgements.parquet")
    assert set(rows["annotator"]) == {"pairwise (stub), both orders, 3 times"}
    assert [turn for turn, _ in json.loads(rows["verdicts"][0])] == [0, 1] * 3
    irlens(*contest, *asked, "--out", tmp_path / "once")
    irlens(
        "judges",
        tmp_path / "thrice",
        tmp_path / "once",
        "--judge",
        "length",
        "--resamples",
        20,
        "--out",
        tmp_path / "out",
    )
    bias = values(tmp_path / "out", "bias", judge="pairwise (stub), both orders, 3 times")
    assert bias["same again"] == bias["same winner in both orders"] == 1.0 and bias["first shown preferred"] == 0.5
    assert "same again" not in values(tmp_path / "out", "bias", judge="pairwise (stub)")
    assert values(tmp_path / "out", "agreement", judge="pairwise (stub)", against="length")["kappa"] == 1.0


def test_repeats_are_for_judges_that_are_asked(contest, refused, tmp_path):
    assert "length would say the same" in refused(*contest, "--judge", "length", "--repeats", 2)
    assert "--repeats must be at least 2" in refused(*contest, "--judge", "length", "--repeats", 1)
    stored = write(tmp_path / "stored.json", notes("one", lambda i, s: 1))
    assert "stored preferences are as they are" in refused("winrate", stored, "--repeats", 2)


# -- rerankers -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ones_own_reward_and_a_models_likelihood(sets, irlens, undrawn, tmp_path, monkeypatch):
    """`module:function` and the embedded model; scores are kept, and found by the same command after it was broken off."""
    (tmp_path / "own_reward.py").write_text("def brief(run):\n    return -run['text'].str.len()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    args = [
        "judges",
        *sets,
        "--judge",
        "own_reward:brief,length,mean-likelihood",
        "--policy",
        "tiny",
        "--resamples",
        20,
    ]
    irlens(*args, "--out", tmp_path / "out")
    assert values(tmp_path / "out", "agreement", judge="own_reward:brief", against="length")["kappa"] == pytest.approx(
        -1, abs=0.2
    )
    ranked = values(tmp_path / "out", "rankings", judge="one", run="mean-likelihood")
    assert 0 < ranked["nDCG"] <= 1 and 0 <= ranked["RR"] <= 1
    shards = list((tmp_path / "out" / "scores").rglob("*.parquet"))
    assert len(shards) == 1
    before, whole = shards[0].stat().st_mtime_ns, table(tmp_path / "out", "rankings")
    (tmp_path / "out" / "rankings.csv").unlink()
    irlens(*args, "--out", tmp_path / "out")
    assert shards[0].stat().st_mtime_ns == before and table(tmp_path / "out", "rankings").equals(whole)


@pytest.mark.slow
def test_other_judgements_are_another_folder(sets, irlens, refused, undrawn, tmp_path):
    irlens("judges", *sets, "--resamples", 0, "--out", tmp_path / "out")
    write(sets[1], notes("two", lambda i, s: 2))
    line = refused("judges", *sets, "--resamples", 0, "--out", tmp_path / "out")
    assert "was made with content = " in line and "choose another --out" in line


# -- what is refused -----------------------------------------------------------------------------------------------


def test_wrong_input_is_one_line(sets, refused, irlens, tmp_path):
    first = sets[0]
    (tmp_path / "empty").mkdir()
    outputs = write(tmp_path / "outputs.json", [{"instruction": "Q", "output": "a", "generator": "g"}])
    elsewhere = write(
        tmp_path / "elsewhere.json",
        [r | {"instruction": r["instruction"] + "!", "annotator": "c"} for r in json.loads(first.read_text())],
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"command": "passk", "status": "complete"}))
    pd.DataFrame({"query_id": ["q"], "text": ["a"]}).to_parquet(tmp_path / "run" / "run.parquet")
    cases = {
        "run: is of `irlens passk` and holds no judgements.parquet": ("judges", first, tmp_path / "run"),
        "run.parquet: holds no judgements (instruction,": ("judges", first, tmp_path / "run" / "run.parquet"),
        "judges: name judgements": ("judges",),
        "no such file or folder of judgements": ("judges", tmp_path / "nowhere", first),
        "name each set of judgements once": ("judges", first, first),
        "agreement needs two judges, and there is one; name another set, or a reranker": ("judges", first),
        "holds no judgements (instruction, output_1, output_2, preference)": ("judges", first, outputs),
        "holds no judgements.parquet and no annotations.json": ("judges", first, tmp_path / "empty"),
        "are the same; prompts are joined by their text": ("judges", first, elsewhere),
        "few has preferences for one prompt; intervals need two": (
            "judges", first, write(tmp_path / "few.json", notes("few", lambda i, s: 1, 1)),
        ),
        "none of its 20 prompts has a preference": ("judges", first, write(tmp_path / "none.json", notes("none", lambda i, s: None))),
        "not from 1 to 2 (the first, number 3, is 7)": (
            "judges", first, write(tmp_path / "high.json", notes("high", lambda i, s: 7 if i == 2 and s == 0 else 1)),
        ),
        "--judge pairwise: is asked by `irlens winrate`": (*("judges", first), "--judge", "pairwise"),
        "--judge majority: says nothing about two answers": (*("judges", first), "--judge", "majority"),
        "did you mean": (*("judges", first), "--judge", "lenght"),
        "name at least one, each once": (*("judges", first), "--judge", "length,length"),
        "no measure 'nDGC'": ("judges", *sets, "--measures", "nDGC"),
        "few has preferences for one prompt": ("judges", tmp_path / "few.json", "--judge", "length"),
        "order must be alpaca-eval or none": ("judges", *sets, "--order", "shuffled"),
    }  # fmt: skip
    for told, args in cases.items():
        assert told in refused(*args, "--resamples", 0, "--out", tmp_path / "out"), told
    assert not (tmp_path / "out").exists()


def test_prompts_that_one_judge_lacks_are_named_and_counted(sets, irlens, undrawn, tmp_path):
    rows = json.loads(sets[1].read_text())
    write(
        sets[1],
        [
            row | {"preference": None} if row["instruction"] == "Question 9?" else row
            for row in rows
            if row["instruction"] != "Question 3?"
        ],
    )
    done = irlens("judges", *sets, "--resamples", 0, "--out", tmp_path / "out")
    assert "two: has nothing for 2 of 20 prompts (the first: 'Question 3?')" in done.stdout
    assert "two: 2 pairs have no preference: left out, and counted" in done.stdout
    assert set(table(tmp_path / "out", "agreement")["n"]) == {2 * N - 4}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["missing"] == {"one": 0, "two": 2}


# -- real lists ----------------------------------------------------------------------------------------------------


def test_the_published_judge_and_length_on_the_twelve_systems(real_data, irlens, undrawn, tmp_path):
    """The judge's order is AlpacaEval's: it favours what is shown second; length alone ranks far above chance."""
    with gzip.open(real_data("alpaca/candidates.jsonl.gz"), "rt", encoding="utf-8") as lines:
        (tmp_path / "lists.jsonl").write_text("".join(line for _, line in zip(range(150), lines)))
    irlens(
        "judges", tmp_path / "lists.jsonl", "--judge", "length,random", "--resamples", 100, "--out", tmp_path / "out"
    )
    bias = table(tmp_path / "out", "bias").set_index(["judge", "measure"])
    gain = bias.loc[("lists", "gain of the first place")]
    assert gain["low"] < gain["value"] < gain["high"] < 0 and gain["n"] > 1700
    ranked = table(tmp_path / "out", "rankings").set_index(["run", "measure"])["value"]
    for measure in ("nDCG@3", "nDCG", "RR"):
        assert ranked["chance", measure] + 0.2 < ranked["length", measure] < ranked["oracle", measure] <= 1
    lengths = table(tmp_path / "out", "lengths")
    own = lengths[lengths["judge"] == "lists"].sort_values("part")["value"].to_numpy()
    assert len(own) == 10 and own[-1] > 0.5 > 0.1 > own[0] and np.isfinite(own).all()

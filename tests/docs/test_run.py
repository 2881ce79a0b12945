"""What README and docs/ show works as it stands: the tutorials, the files of one's own, the recipe, the notebook."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def blocks(page, language):
    """A page's code blocks of a language, those within tabs left out."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)


def joined(block):
    """The lines of a block, with those that end in a backslash joined to the next."""
    return block.replace("\\\n ", "").splitlines()


def execute(code, page):
    """Runs code in a namespace of its own; a traceback names the page."""
    namespace = {}
    exec(compile(code, page, "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_the_loop_by_commands(tmp_path, irlens):
    commands = [line for block in blocks("docs/tutorials/commands.md", "sh") for line in joined(block)]
    assert len(commands) >= 7 and all(line.startswith("irlens ") for line in commands)
    for line in commands:
        irlens(*shlex.split(line)[1:], cwd=tmp_path)
    told = pd.read_csv(tmp_path / "measured" / "results.csv").set_index("measure")["value"]
    assert 0 < told["Pass@1"] < told["Pass@16"] < 1
    lists = pd.read_parquet(tmp_path / "mined" / "lists.parquet")
    assert {"positive", "easy", "hard", "hardest"} <= set(lists["tier"])
    assert json.loads((tmp_path / "trained" / "manifest.json").read_text())["status"] == "complete"


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/notebook.md"])
def test_a_notebook(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = execute("\n".join(blocks(page, "python")), page)
    assert len(found["run"]) == 40 * 16 and len(found["lists"]) > 40
    assert "Pass@1" in capsys.readouterr().out or page == "README.md"


@pytest.mark.slow
def test_from_own_prompts_to_a_policy(tmp_path, irlens, monkeypatch):
    """docs/howto/own-prompts.md: prompts without answers, a reward of one's own, lists, training, the start beside it."""
    from irlens import tasks

    page = "docs/howto/own-prompts.md"
    (example,) = blocks(page, "json")
    assert set(json.loads(example)) == {"instruction"}
    rows = [{"instruction": query} for query in tasks.load("sums", "train", 60).topics["query"]]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (code,) = blocks(page, "python")
    (tmp_path / "my_reward.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = [line for block in blocks(page, "sh") for line in joined(block)]
    assert len(commands) == 7 and all(line.startswith("irlens ") for line in commands)
    told = {line: irlens(*shlex.split(line)[1:], cwd=tmp_path).stdout for line in commands}
    assert any("trained on 45, held out 15" in text for text in told.values())
    for folder in ("mined", "again"):
        lists = pd.read_parquet(tmp_path / folder / "lists.parquet")
        lists["reward"] = execute(code, page)["score"](lists)
        best = lists[lists["tier"] == "positive"].set_index("query_id")["reward"]
        assert len(best) > 5 and (lists["reward"] <= lists["query_id"].map(best)).all()
    tests = pd.read_csv(tmp_path / "trained" / "tests.csv").set_index("measure")
    assert {"win rate", "reward"} == set(tests.index) and (tests["n"] == 7).all()
    compared = pd.read_csv(tmp_path / "compared" / "values.csv")
    assert (compared["n"] == 60).all() and {"tiny", "iteration-1"} == set(compared["run"])
    reward = compared[compared["against"].isna()].set_index(["run", "measure"])["value"]
    assert all(reward[name, "Reward@1"] < reward[name, "Reward@8"] for name in set(compared["run"]))
    assert {"win rate", "length-controlled win rate"} < set(compared["measure"])


def test_two_systems_are_compared(tmp_path, irlens, monkeypatch, shaken):
    """docs/howto/compare.md: models that draw, their runs, both together, a reward; but for judges that are not here."""
    page = "docs/howto/compare.md"
    shutil.copytree(shaken, tmp_path / "tiny-trained")
    (tmp_path / "my_reward.py").write_text("def score(run):\n    return -run['text'].str.len()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = [line for block in blocks(page, "sh") for line in joined(block)]
    here = [
        line.replace("--limit 40 -n 8", "--limit 8 -n 2").replace("Pass@8", "Pass@2")
        for line in commands
        if "--judge" not in line
    ]
    assert len(commands) == 6 and len(here) == 4
    for line in here:
        irlens(*shlex.split(line)[1:], cwd=tmp_path)
    values = {name: pd.read_csv(tmp_path / name / "values.csv") for name in ("models", "runs", "mixed", "by-reward")}
    assert values["models"]["value"].tolist() == values["runs"]["value"].tolist()
    assert set(values["mixed"]["run"]) == {"tiny", "tiny-trained"} and "win rate" in set(values["by-reward"]["measure"])
    (code,) = blocks(page, "python")
    found = execute(code.replace("limit=20", "limit=6").replace("n=4", "n=2"), page)
    assert set(found["preferred"]["before"]) == {"T = 0.7"} and len(found["preferred"]) == 6


def test_a_reranker_is_audited(tmp_path, irlens, rewardbench_rows):
    """docs/howto/audit.md: on draws alone, with the benchmark beside them, and in Python; but for the hub's."""
    page = "docs/howto/audit.md"
    commands = [line.partition("#")[0].strip() for block in blocks(page, "sh") for line in joined(block)]
    (tmp_path / "reward-bench-2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewardbench_rows()))
    here = [line for line in commands if "fsfairx" not in line and "reproduce" not in line]
    assert len(commands) == 5 and len(here) == 3
    small = {
        "--limit 40 -n 100": "--limit 8 -n 10",
        "path/to/model": "length",
        "--run draws": "--run irlens-out/passk-tiny-sums",
    }
    for line in here:
        for told, smaller in small.items():
            line = line.replace(told, smaller)
        irlens(*shlex.split(line)[1:], cwd=tmp_path)
    assert len(pd.read_csv(tmp_path / "both" / "results.csv")) == 7
    picks = pd.read_csv(tmp_path / "audit" / "picks.csv").set_index(["run", "cutoff"])["value"]
    assert picks["mean-likelihood", 10] > picks["random per text", 10]
    (code,) = blocks(page, "python")
    found = execute(code.replace("limit=20", "limit=6").replace("n=20", "n=6"), page)["found"]
    assert found.name == "mean-likelihood" and len(found.over_optimisation) > 10


def test_own_draws(capsys):
    (code,) = blocks("docs/howto/data.md", "python")
    assert len(execute(code, "docs/howto/data.md")["run"]) == 2


def test_a_script_of_trl_changed(tmp_path, monkeypatch):
    from irlens.models import catalog

    (diff,) = blocks("docs/howto/from-trl.md", "diff")
    code = "\n".join(line[1:] for line in diff.splitlines() if not line.startswith("-"))
    rows = [{"prompt": f"What is {i} + 1?", "chosen": f"{i + 1}", "rejected": f"{i}"} for i in range(8)]
    (tmp_path / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    assert "my-model" in code
    execute(code.replace("my-model", str(catalog.fetch(catalog.model("tiny")))), "docs/howto/from-trl.md")


def test_what_lm_eval_has_drawn_goes_on(tmp_path, irlens):
    """Both pages' commands, on samples of two models; but for the reward model, which is no embedded one."""
    from irlens import tasks

    topics = tasks.load("sums", "test", 6).topics
    for number, folder in enumerate(("", "model-a", "model-b")):
        rows = []
        for i, (query, answers) in enumerate(zip(topics["query"], topics["answers"])):
            right = [1.0 if i < 3 + number else 0.0, 0.0]
            texts = [f"#### {answers[0]}" if right[0] else f"#### -{i + 1}", f"that is {-i}"]
            asked = {"gen_args_0": {"arg_0": query, "arg_1": {"do_sample": True, "temperature": 0.7}}}
            told = {"doc_id": i, "doc": {"question": query}, "target": answers[0], "arguments": asked}
            rows.append(
                told | {"resps": [texts], "filtered_resps": texts, "metrics": ["exact_match"], "exact_match": right}
            )
        path = tmp_path / folder / "samples_gsm8k_2026-01-01T00-00-00.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    commands = [line for block in blocks("docs/howto/from-lm-eval.md", "sh") for line in joined(block)]
    assert len(commands) == 6
    for line in commands:
        irlens(*shlex.split(line)[1:], cwd=tmp_path)
    values = pd.read_csv(tmp_path / "irlens-out" / "compare-a-b" / "values.csv").set_index(["measure", "run"])["value"]
    assert values["Pass@1", "a"] == pytest.approx(4 / 12) and values["Pass@1", "b"] == pytest.approx(5 / 12)
    page = [line for block in blocks("docs/howto/import.md", "sh") for line in joined(block)]
    rest = [line for line in page if not re.search(r" import | c$| c --|fsfairx|--verifier", line)]
    assert len(rest) == 4  # best-of-n, mine-negatives, compare, export
    for line in rest:
        irlens(*shlex.split(line)[1:], cwd=tmp_path)
    assert list((tmp_path / "irlens-out").glob("export-every-eval-ever-a/*.json"))


OWN = [
    (block, *re.match(r"# (\w+\.py): irlens (.*)", block).groups())
    for block in blocks("docs/howto/extend.md", "python")
]


@pytest.mark.slow
@pytest.mark.parametrize("code, name, command", OWN, ids=[name for _, name, _ in OWN])
def test_ones_own_code_works_as_it_stands(code, name, command, tmp_path, irlens, monkeypatch):
    assert len(OWN) == 4 and len(code.splitlines()) <= 14
    (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    args = shlex.split(command)
    if args[0] == "rerank":
        irlens("passk", "--limit", "3", "-n", "4", "--temperature", "1.0", cwd=tmp_path)
    if args[0] == "train":
        args += ["--prompts", "16", "-n", "4", "--eval-limit", "4", "--eval-n", "2", "--test-limit", "0"]
    irlens(*args, "--out", tmp_path / "out", cwd=tmp_path)
    if args[0] == "passk":
        results = pd.read_csv(tmp_path / "out" / "results.csv")
        assert set(results["n"]) == {20} and (args[1] != "--engine" or (results["value"] < 0.5).all())
    elif args[0] == "rerank":
        run = pd.read_parquet(tmp_path / "out" / "run.parquet").sort_values(["query_id", "rank"])
        assert run.groupby("query_id")["text"].apply(lambda texts: texts.str.len().is_monotonic_increasing).all()
    else:
        log = pd.read_csv(tmp_path / "out" / "iteration-1" / "log.csv")
        assert log["loss"].iloc[0] == pytest.approx(2.0, abs=1e-3)  # the margin, where policy and reference are one


def test_ones_own_recipe_is_valid(tmp_path):
    from irlens.reproduce import recipe

    code, _, hacked, judged = blocks("docs/howto/study.md", "toml")
    (tmp_path / "mine.toml").write_text(code)
    mine, base = recipe.load(str(tmp_path / "mine.toml"), "tiny"), recipe.load("fig3b", "tiny")
    assert mine.title != base.title and mine.study == base.study and len(mine.steps) == len(base.steps)
    assert {step.settings.n for step in mine.steps} == {16} != {step.settings.n for step in base.steps}
    (tmp_path / "hacked.toml").write_text(hacked)
    stages = [step.stage for step in recipe.load(str(tmp_path / "hacked.toml"), "tiny").steps]
    assert stages == ["passk", "fit-reranker", "passk", "rewardbench", "train"]
    (tmp_path / "warm.toml").write_text(judged)
    warm = recipe.load(str(tmp_path / "warm.toml"), "paper")
    asking = [step.settings for step in warm.steps if step.stage == "winrate"]
    assert len(asking) == 5 and {(one.judge, one.both_orders) for one in asking} == {("pairwise", True)}
    assert warm.study.label == "LCWinRate at T = 1"


def test_win_rates(tmp_path, irlens, monkeypatch):
    """docs/howto/alpacaeval.md: its files, the commands that need no server, its Python."""
    page = "docs/howto/alpacaeval.md"
    monkeypatch.chdir(tmp_path)
    files, python = blocks(page, "python")
    execute(files, page)
    commands = joined(blocks(page, "sh")[0])
    assert len(commands) == 4
    for line in commands:
        irlens(*shlex.split(line)[1:], cwd=tmp_path)
    read = [pd.read_csv(tmp_path / name / "results.csv").set_index("measure")["value"] for name in ("mine", "again")]
    assert read[0].equals(read[1]) and read[0]["WinRate"] == 1.0
    found = execute("import json\n" + python, page)["found"].set_index("measure")
    assert found["value"].to_dict() == read[0].to_dict() and set(found["judge"]) == {"length"}


def test_judges(tmp_path, irlens, monkeypatch):
    """docs/howto/judges.md: its files, the commands that need no server, its Python; what Python finds is in the folder."""
    page = "docs/howto/judges.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("irlens.commands.judges_pages.draw", lambda tables, out: None)  # its own test draws
    files, python = blocks(page, "python")
    execute(files, page)
    commands = [line for block in blocks(page, "sh") for line in joined(block) if "--base-url" not in line]
    assert len(commands) == 2
    for line in commands:
        irlens(*shlex.split(line)[1:], cwd=tmp_path)
    told = pd.read_csv(tmp_path / "judged" / "agreement.csv").set_index(["judge", "against", "measure"])["value"]
    assert 0 < told["strict", "talkative", "kappa"] < told["strict", "talkative", "agreement"] < 1
    found = execute("import json\n" + python, page)["found"].agreement.set_index(["judge", "against", "measure"])[
        "value"
    ]
    assert found["strict", "talkative", "kappa"] == told["strict", "talkative", "kappa"]


@pytest.mark.slow
def test_a_reranker_of_ones_own(tmp_path, monkeypatch):
    """docs/howto/train-reranker.md: pairs in Python, and what is learnt from them."""
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("docs/howto/train-reranker.md", "python")
    found = execute(block, "train-reranker.md")
    assert found["results"].set_index("measure").loc["PairAccuracy", "n"] == 2
    assert (found["folder"] / "model" / "config.json").is_file() and callable(found["rerank"])

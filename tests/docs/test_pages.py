"""README and docs/ are held to the code: what they name is there, and no number in them is older than its table."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from irlens.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")}
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALL = {"README.md": README, **PAGES}
COMMANDS = typer.main.get_command(app).commands
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ELSEWHERE = {
    "--help",
    "--hidden-size",
    "--layers",
    "--device",
    "--tasks",
    "--log_samples",
}  # of other programs that pages name


@pytest.fixture(scope="module")
def tools():
    """The programs of docs/tools, which write the generated pages."""
    sys.path.insert(0, str(ROOT / "docs" / "tools"))
    yield {name: importlib.import_module(name) for name in ("commands", "figures", "layout", "links", "tables")}
    sys.path.remove(str(ROOT / "docs" / "tools"))


def lines(text):
    """Every `irlens …` line in a page's code blocks, without what follows a comment, and every one in its text."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M):
        for line in block.replace("\\\n ", "").splitlines() if language in ("", "sh", "python", "toml") else ():
            if found := re.search(r"(?:^|-m |^# \w+\.(?:py|toml): |\w=\S+ )irlens +(.*?)(?: +#.*)?$", line):
                yield found[1]
    yield from re.findall(r"`irlens ((?!--)[^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


def named_options(line):
    return {word.partition("=")[0] for word in line.split()[1:] if re.match(r"--?[a-z]", word)}


@pytest.mark.parametrize("line", sorted({line for text in ALL.values() for line in lines(text)}))
def test_every_command_is_one_with_these_options(line):
    name = line.split()[0]
    assert name in COMMANDS, f"no command {name}"
    known = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert named_options(line) <= known, f"{name} has no {sorted(named_options(line) - known)}"


def test_every_command_is_shown():
    shown = [line for text in ALL.values() for line in lines(text)]
    assert len(set(shown)) > 40 and {line.split()[0] for line in shown} >= set(COMMANDS)


@pytest.mark.parametrize("page", [name for name in ALL if "from-" not in name])
def test_options_named_in_the_text_are_some_commands(page):
    known = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}
    told = re.findall(r"`(--[a-z][\w-]*)[^`]*`", re.sub(r"```.*?```", "", ALL[page], flags=re.S))
    assert set(told) <= known | ELSEWHERE, f"no command has {sorted(set(told) - known - ELSEWHERE)}"


@pytest.mark.parametrize("page", ALL)
def test_files_named_are_there(page):
    told = set(re.findall(r"\b((?:irlens|experiments|figures|tests|docs)/[\w/.-]*[\w/])", ALL[page]))
    gone = {name for name in told if not name.startswith("irlens-out") and not (ROOT / name).exists()}
    assert not gone, f"{page} names {sorted(gone)}"


def test_readme_is_short_and_leads_somewhere():
    assert len(README.encode()) <= 9000
    links = [first or second for first, second in re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", README)]
    links = [link for link in links if "://" not in link]
    assert len(links) > 20 and all((ROOT / link).exists() for link in links), links


def test_the_map_of_the_readme_is_the_tree():
    told = README.split("```\nirlens/\n")[1].split("```")[0]
    rooms = set(re.findall(r"^  (\S+)", told, re.M))
    there = {p.name + "/" for p in (ROOT / "irlens").iterdir() if p.is_dir() and p.name != "__pycache__"}
    there |= {p.name for p in (ROOT / "irlens").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert rooms == there


def test_where_things_are_names_every_module_with_its_purpose(tools):
    told = tools["layout"].sections(ROOT)
    for path in (ROOT / "irlens").rglob("*.py"):
        purpose = tools["layout"].purpose(path)
        assert purpose, f"{path} does not say what it is for"
        assert path.name == "__init__.py" or f"`{path.name}`" in told or f"/{path.name}`" in told
    assert tools["layout"].MARK in PAGES["docs/reference/layout.md"]


def test_a_commands_page_tells_every_option(tools, tmp_path):
    tools["commands"].write(tmp_path / "commands")
    for name, command in COMMANDS.items():
        page = (tmp_path / "commands" / ("index-command.md" if name == "index" else f"{name}.md")).read_text()
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or all(f"`{o}" in page for o in parameter.opts), parameter
            assert not parameter.help or " ".join(parameter.help.split())[:15] in page


def test_every_page_is_in_the_navigation(tools, tmp_path):
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    tools["commands"].write(tmp_path / "commands")
    generated = {f"reference/commands/{path.name}" for path in (tmp_path / "commands").glob("*.md")}
    generated |= {"changelog.md", "contributing.md"}
    assert set(leaves(nav)) == generated | {name.removeprefix("docs/") for name in PAGES}


def leaves(nav):
    for entry in nav if isinstance(nav, list) else nav.values():
        if isinstance(entry, str):
            yield entry
        else:
            yield from leaves(entry)


def test_names_told_are_the_names_there_are():
    from irlens import tasks
    from irlens.negatives.mine import TIERS
    from irlens.train.losses import names

    told = set(
        re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (.*?) \|", PAGES["docs/concepts/objectives.md"], re.M)))
    )
    assert set(names()) <= told
    told = set(
        re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (.*?) \|", PAGES["docs/concepts/negatives.md"], re.M)))
    )
    assert set(TIERS) <= told
    first = PAGES["docs/howto/data.md"].split("takes a name (")[1].split(")")[0]
    assert set(re.findall(r"`(\w+)`", first)) == set(tasks.NAMES)


def test_every_objective_has_its_formula_and_source_in_one_table():
    """The row of an objective names the paper that the code names, by its number and equation."""
    from irlens.train.losses import OBJECTIVES

    page = PAGES["docs/concepts/objectives.md"]
    rows = dict(re.findall(r"^\| `([\w-]+)` (\|.*\|)$", page, re.M))
    for name, objective in OBJECTIVES.items():
        cited = re.search(r"arXiv .*", objective.source)
        assert name in rows and (cited is None or cited[0] in rows[name]), (name, objective.source)
    assert rows.keys() - {"--objective"} == OBJECTIVES.keys()


def test_public_names_told_are_the_public_names():
    import irlens

    told = re.findall(r"^`(?:irlens)?\.?(\w+)", PAGES["docs/reference/api/index.md"], re.M)
    public = {name for name in irlens.__all__ if not name.startswith("_")} - {"Task"}
    assert public <= set(told) | {"train", "losses", "export"}, public - set(told)
    every = set(re.findall(r"\birlens\.(\w+)(?:\.(\w+))?", PAGES["docs/reference/api/index.md"]))
    for name, member in every - {("__version__", "")}:
        assert not member or hasattr(getattr(irlens, name), member), f"irlens.{name}.{member}"
        assert hasattr(irlens, name), f"irlens.{name}"


def test_extras_told_are_the_extras():
    told = set(re.findall(r"`([\w-]+)`", PAGES["docs/index.md"].split("| extra | for |")[1].split("\n\n")[0]))
    assert told == set(PROJECT["optional-dependencies"]) - {"test", "bench", "docs", "dev", "mutants", "peers"}


def test_recipes_told_are_the_recipes():
    told = set(re.findall(r"`experiments/(\w+)\.toml`", PAGES["docs/paper/index.md"]))
    assert told == {path.stem for path in (ROOT / "experiments").glob("*.toml")}


def test_the_result_of_the_readme_is_the_figures():
    told = (ROOT / "figures" / "table3.conclusions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+)(?: \(DPO\))? \| (\+\S+ \[.*?\]) \| (.*?) ?\|$", README, re.M)
    assert len(rows) == 4
    for name, gain, above in rows:
        assert re.search(rf"^- {name}, .* against the start: {re.escape(gain.replace(' [', ' points ['))}", told, re.M)
        assert not above or re.search(rf"{name} above pairwise.*\({re.escape(above.replace(' [', ' points ['))}", told)


def test_the_intervals_of_the_results_page_are_the_figures():
    told = PAGES["docs/paper/results.md"].replace("−", "-")
    parts = re.findall(r"(?ms)^\*\*Here:\*\*(.*?)\[Every\s+test\]\(\.\./gallery\.md#(\w+)\)", told)
    assert {name for _, name in parts} == {
        p.name.split(".")[0] for p in (ROOT / "figures").glob("*.conclusions.md")
    } - {"fig2"}
    for text, name in parts:
        found = (ROOT / "figures" / f"{name}.conclusions.md").read_text(encoding="utf-8").replace("-0.0", "+0.0")
        swapped = {f"[{-float(b):+.1f}, {-float(a):+.1f}]" for a, b in re.findall(r"\[(\S+), (\S+)\]", found)}
        for interval in re.findall(r"\[[+-][\d.]+,\s[+-][\d.]+\]", text):
            plain = " ".join(interval.split()).replace("-0.0", "+0.0")
            assert plain in found or plain in swapped, f"{name}: {interval} is not among its conclusions"


def test_verdicts_and_tables_are_filled_in(tools):
    filled = tools["figures"].fill(PAGES["docs/paper/index.md"], ROOT)
    assert "<!--" not in filled and re.search(r"`fig3c`.*\[\d+ of \d+\]", filled)
    filled = tools["figures"].fill(PAGES["docs/gallery.md"], ROOT)
    assert "<!--" not in filled and "irlens reproduce fig2b --preset tiny --seeds 0,1,2,3,4\n" in filled
    filled = tools["tables"].fill(PAGES["docs/performance.md"], ROOT)
    assert "<!--" not in filled and "| flattened list |" in filled


def test_what_is_said_of_trl_is_in_its_tables():
    """Every interval, and who took how long."""
    import pandas as pd

    bench, page = ROOT / "experiments" / "bench", PAGES["docs/howto/against-trl.md"].replace("−", "-")
    tests = pd.read_csv(bench / "against_trl_tests.csv")
    known = {
        f"[{100 * row.low_over_seeds:+.{digits}f}, {100 * row.high_over_seeds:+.{digits}f}]"
        for row in tests.itertuples()
        for digits in (1, 2)
    }
    told = re.findall(r"\[[+-][\d.]+, [+-][\d.]+\]", page)
    assert len(told) == 5 and set(told) <= known, set(told) - known
    took = pd.read_csv(bench / "against_trl.csv").set_index("system")["cpu_s"]
    ours, theirs, faster = re.search(r"took (\d+) CPU seconds where TRL took (\d+): ([\d.]+) times", page).groups()
    assert (round(took["irlens, pairs"]), round(took["TRL, pairs"])) == (int(ours), int(theirs))
    assert round(took["TRL, pairs"] / took["irlens, pairs"], 1) == float(faster)
    same = pd.read_csv(bench / "against_trl_seeds.csv")["steps_within_1e-4"].tolist()
    assert same[1] == int(re.search(r"the same for (\d+)\s+steps", page)[1])


def test_coming_from_trl_changes_five_lines_at_most():
    (diff,) = re.findall(r"```diff\n(.*?)```", PAGES["docs/howto/from-trl.md"], re.S)
    changed = [sum(line.startswith(sign) for line in diff.splitlines()) for sign in "+-"]
    assert 0 < max(changed) <= 5


def test_links_that_lead_nowhere_or_load_from_elsewhere_are_found(tools, tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">b</a><a href="#top">top</a><a href="https://example.org">away</a>'
        '<a href="b.html#gone">1</a><a href="c.html">2</a><script src="https://cdn.example.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2><img src="none.png">')
    wrong = tools["links"].wrong(tmp_path)
    assert [line.split()[-3 if "nowhere" in line else -1] for line in wrong] == [
        "b.html#gone",
        "c.html",
        "https://cdn.example.org/x.js",
        "none.png",
    ]

"""What models, data and recipes say, where it goes: a terminal, a page, a TeX table, the name of a file."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlens.base import untrusted
from irlens.base.errors import UserError

EVIL = [  # names that lead elsewhere, or mean something to a system
    "../../../evil", "/etc/passwd", "..", ".", "", "a\x00b", "CON", "nul.txt", "com1", "~", "-rf", "a/../b", "C:\\evil", "\\\\host\\share",
    "a" * 5000, "é" * 300, "．．／evil", "‮gnp.exe", "a\nb", "\x1b]0;title\x07", "\ud800", "  ", "…", "%2e%2e%2f", "$(id)", "`id`", "a|b",
]  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_any_name_becomes_one_file_of_a_folder(name, tmp_path):
    short = untrusted.file_name(name)
    path = tmp_path / short
    path.write_text("here")
    assert path.resolve().parent == tmp_path.resolve() and [p.name for p in tmp_path.iterdir()] == [short]
    assert (
        not untrusted.RESERVED.fullmatch(short) and not untrusted.CONTROL.search(short) and len(short.encode()) <= 110
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=30), unique=True, max_size=12))
def test_no_two_names_share_a_file(names):
    short = untrusted.file_names(names)
    written = {unicodedata.normalize("NFC", one).casefold() for one in short.values()}
    assert len(written) == len(names) and not any("/" in one or "\0" in one for one in written)


def test_names_that_are_their_own_keep_their_names():
    assert untrusted.file_names(["contrastive", "own-lists_2", "a b"]) == {
        "contrastive": "contrastive", "own-lists_2": "own-lists_2", "a b": "a-b"
    }  # fmt: skip
    both = untrusted.file_names(["a b", "a-b", "A b", "c"])
    assert both["c"] == "c" and len({one.casefold() for one in both.values()}) == 4


@pytest.mark.parametrize("name", [*EVIL, None, 3, ["a"]])
def test_a_folder_of_a_recipe_has_a_plain_name(name):
    plain = ["…", "%2e%2e%2f", "$(id)", "`id`", "a|b", "~", "-rf", "．．／evil"]
    if name in plain:  # strange, and one folder all the same
        return untrusted.check_name(name, "here")
    with pytest.raises(UserError, match="^here: ") as error:
        untrusted.check_name(name, "here")
    assert len(str(error.value)) < 300 and not untrusted.CONTROL.search(str(error.value))


TERMINAL = [
    "\x1b[2J",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "\x9b31m",
    "a\rb",
    "\x08\x08",
    "\u202eabc",
    "\u200b",
]


@pytest.mark.parametrize("text", TERMINAL)
def test_a_terminal_shows_what_would_command_it(text):
    shown = untrusted.shown(f"before {text} after")
    assert not untrusted.CONTROL.search(shown) and "\\" in shown and shown.endswith(" after")
    assert untrusted.escaped("Ünïcode, 漢字\tand 🍎\n") == "Ünïcode, 漢字\tand 🍎\n"


PAGES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](http://evil/p.png)",
    "a | b\n\n# c",
]


@pytest.mark.parametrize("text", PAGES)
def test_a_page_prints_what_would_be_code(text):
    table = untrusted.markdown_table(("name", "value"), [(text, "1")])
    assert table.count("\n") == 2 and "<" not in table and "](" not in table
    assert len(re.findall(r"(?<!\\)\|", table.splitlines()[2])) == 3


@pytest.mark.parametrize(
    "text",
    [r"\input{/etc/passwd}", r"\write18{id}", "a & b % c", "$x_1^2$", "[2cm]", "*", "~#{}", "a\\\\\n\\end{tabular}"],
)
def test_tex_prints_what_would_be_a_command(text):
    said = untrusted.tex(text)
    for own in (*untrusted.TEX.values(), "{[}", "{*}"):
        said = said.replace(own, "")
    assert not set(said) & set("\\&%$#_{}~^") and not said.startswith(("[", "*"))


def test_a_link_that_leads_out_of_a_folder_is_named(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / "1-draws").mkdir(parents=True)
    elsewhere.mkdir()
    (out / "inside").symlink_to(out / "1-draws")
    untrusted.check_inside(out)
    (out / "2-draws").symlink_to(elsewhere)
    with pytest.raises(UserError, match="2-draws is a link that leads out of it"):
        untrusted.check_inside(out)

"""What the fuzz (`fuzz.py`) feeds to the commands: whole inputs of every kind (BASES), and hypothesis' ways to spoil them."""

from __future__ import annotations

import copy
import csv
import functools
import io
import json
import re
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

OUT = ["--out", "out"]
DEEP = 20_000
LONG = "i" * 100_000  # an identifier that is none
RAW = ["1e999", "9" * 5000, "-1e309", "NaN", "-Infinity", "[" * DEEP, '{"a":' * DEEP, "[" * DEEP + "]" * DEEP, '"\\ud800"',
       '"\\u0000"', "tru", "", "01", "1_000", '"a', '{"a": 1, "a": 2}', '"\\x"', "1" + "0" * 400, "\ufeff1", "#### 1"]  # fmt: skip
VALUES = [0, -1, 1, 2, 10_001, 2**31, 2**53 + 1, 2**63, 10**30, 0.5, -0.0, 1e300, 1e-320, float("nan"), float("inf"),
          float("-inf"), 1700000000, 1700000000123.4, 1e18, True, False, None, "", " ", "\x00", "\x1b[2J", "\ud800", "a\ud83d",
          "🍎", "a b", "a\nb", "../../x", "1", "1e5", "nan", [], {}, [None], [[1]], {"a": {"b": [1]}}, ["a"], {"role": "user"},
          [{"role": "user", "content": None}], [{"role": "x", "content": "a"}], LONG, "q0", "q1", "٣", "²"]  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A command that ends well: its words, the files it is given (content as `write` takes it), and folders of the world."""

    kind: str
    argv: list[str]
    files: dict[str, object] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    answer: object = None  # what the server says


# -- forms of files ----------------------------------------------------------------------------------------------------


def jsonl(rows) -> bytes:
    return "".join(_dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


def whole(rows) -> bytes:
    return _dumps(rows).encode("utf-8", "surrogatepass")


def table(rows) -> bytes:
    """Rows as CSV."""
    keys = list(dict.fromkeys(key for row in _dicts(rows) for key in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerows([keys, *([row.get(key, "") for key in keys] for row in _dicts(rows))])
    return out.getvalue().encode("utf-8", "surrogatepass")


def parquet(rows) -> bytes:
    """Rows as Parquet; a column of values that no type holds together is of their words."""
    rows = _dicts(rows)
    columns = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [_sound(row.get(key)) for row in rows]
        try:
            columns[str(key)] = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            columns[str(key)] = pa.array([None if value is None else str(value)[:200_000] for value in values])
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def lines(rows) -> bytes:
    """Rows as words by spaces, as TREC files have them."""
    text = "".join(" ".join(str(value) for value in row) + "\n" for row in rows if isinstance(row, list))
    return text.encode("utf-8", "surrogatepass")


def tabbed(rows) -> bytes:
    return lines(rows).replace(b" ", b"\t")


def _dicts(rows):
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _sound(value):
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_sound(one) for one in value]
    return {key: _sound(one) for key, one in value.items()} if isinstance(value, dict) else value


def _dumps(value) -> str:
    text = json.dumps(value, ensure_ascii=bool(len(str(value)) % 2))
    return re.sub(r'"@raw(\d+)"', lambda found: RAW[int(found[1]) % len(RAW)], text)


FORMS = {"jsonl": jsonl, "json": whole, "csv": table, "parquet": parquet, "lines": lines, "tsv": tabbed}


def content(given: object) -> bytes:
    """A file's bytes: (form, value), a text or bytes."""
    if isinstance(given, tuple):
        return FORMS[given[0]](given[1])
    return given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given


# -- spoiling ----------------------------------------------------------------------------------------------------------

nasty = (
    st.sampled_from(VALUES) | st.integers(0, len(RAW) - 1).map("@raw{}".format)
    | st.floats() | st.integers() | st.text(max_size=8) | st.lists(st.sampled_from(VALUES[:30]), max_size=3)
)  # fmt: skip
words = st.sampled_from([*(str(v).replace(" ", "_") for v in VALUES if v not in ("", " ")), *RAW[:4], "a b", "x\ty"])


def places(value, here=()):
    """The paths to all that a nested value holds."""
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*here, key))


@st.composite
def spoiled(draw, value, other=nasty):
    """A nested value with one to three places changed, left out or doubled."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        path = draw(st.sampled_from(list(places(value))))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(nasty)
            continue
        *above, last = path
        holder = functools.reduce(lambda at, key: at[key], above, value)
        how = draw(st.sampled_from(["set", "set", "set", "drop", "double", "rename"]))
        if how == "set":
            holder[last] = draw(other)
        elif how == "drop":
            del holder[last]
        elif isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[last]))
        else:
            holder[
                draw(st.sampled_from(["", "🍎", "prompt", "answer", "score", "id", "query_id", str(last).upper()]))
            ] = holder[last]
    return value


@st.composite
def damaged(draw, whole: bytes):
    """Bytes that are cut, flipped, or have something put in."""
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        how = draw(st.sampled_from(["flip", "cut", "put", "put", "drop"]))
        if how == "flip" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del found[at:]
        elif how == "drop":
            del found[at : at + draw(st.integers(1, 40))]
        else:
            some = [
                b"\x00",
                b"\xff\xfe",
                b"\xed\xa0\x80",
                b"\n",
                b'"',
                b"{",
                b"}",
                b"[" * DEEP,
                b"9" * 5000,
                b"nan",
                b"\t",
            ]
            found[at:at] = draw(st.sampled_from(some))
    return bytes(found)


@st.composite
def files(draw, base: str):
    """A case: one of a base's files is spoiled."""
    given = bases().BASES[base].files
    name = draw(st.sampled_from(sorted(given)))
    form = given[name]
    if isinstance(form, tuple) and draw(st.integers(0, 4)):
        spoil = spoiled(form[1], words) if form[0] in ("lines", "tsv") else spoiled(form[1])
        try:
            return {"base": base, "files": {name: content((form[0], draw(spoil)))}}
        except (RecursionError, TypeError, ValueError, OverflowError):  # not to be written in this form
            pass
    return {"base": base, "files": {name: draw(damaged(content(form)))}}


@st.composite
def recipes(draw, base: str):
    """A case: a recipe with other values, or damaged."""
    name, text = next(iter(bases().BASES[base].files.items()))
    if not draw(st.integers(0, 4)):
        return {"base": base, "files": {name: draw(damaged(content(text)))}}
    said = content(text).decode().split("\n")
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        at = draw(st.integers(0, len(said) - 1))
        key, equals, _ = said[at].partition(" = ")
        how = draw(st.sampled_from(["value", "value", "value", "drop", "double", "key"])) if equals else "drop"
        if how == "value":
            said[at] = f"{key} = {draw(st.sampled_from(TOML))}"
        elif how == "key":
            said[at] = f"{draw(st.sampled_from(KEYS))} = {draw(st.sampled_from(TOML))}"
        else:
            said[at : at + 1] = [] if how == "drop" else [said[at]] * 2
    return {"base": base, "files": {name: "\n".join(said).encode("utf-8", "surrogatepass")}}


TOML = ["-4", "0", "nan", "inf", "[nan]", "[]", "[1.0, inf]", "[-1.0]", "9223372036854775808", "1" + "0" * 5000, "true", '""', '" "',
        "{}", "{a = 1}", "[[1]]", '"🍎"', '"a/b"', '"../x"', '["a", 1]', "1979-05-27", '"\\u0000"', '"mine"', '"mine.toml"', "1e400",
        '"' + "x" * 100_000 + '"', "[" * 2000, '"@a"', '"tiny"', "-1", "0.5", "10000000000", '"test"', "[{a = 1}]"]  # fmt: skip
KEYS = ["n", "limit", "temperature", "like", "stage", "model", "title", "name", "prompts", "eval_n", "epochs", "beta", "seed", "study",
        "claim", "figure", "preset", "shared", "test", "at", "verifier", "batch_size", "learning_rate", "a.b", "''"]  # fmt: skip

OPTION = ["-4", "-1", "0", "nan", "inf", "-inf", "1e300", "1e-300", "1e999", "10000000000", "9" * 30, "9" * 5000, "0.5", "", " ", ",",
          "1,,2", "1,nan", "0,-1", "🍎", "\ud800", "a\ud83d.json", "\x1b[2J", "i" * 100_000, "x/y", "../../x", "/", ".", "~", "[]", "{}",
          "[" * DEEP, '{"a": NaN}', "{'a'}", "none", "null", "True", "--", "@a", "a=b", "prompt=", "%s%n", "http://[", "http://127.0.0.1:9/v1",
          "module:function", "os:getcwd", "json:loads", ":", "gsm8k:", "hf:", "irds:", "mixeval:", "reward:", "vote:", "judge:", "regex:(",
          "regex:(?P<a>", "Pass@0", "nDCG@-1", "P(rel=nan)@5", "RR RR", "x" * 300, "1 2", "q/p", "p", "p/run.parquet", "١"]  # fmt: skip


@st.composite
def options(draw, base: str, command):
    """A case: one or two options of a command (`command` of the parser) have values that mean nothing."""
    argv = list(bases().BASES[base].argv)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        one = draw(st.sampled_from([p for p in command.params if p.name != "help"]))
        if getattr(one, "is_flag", False):
            argv.append(draw(st.sampled_from([*one.opts, *one.secondary_opts])))
        elif one.param_type_name == "argument":
            word = draw(st.sampled_from(OPTION) | st.text(max_size=5)).replace("\x00", "")
            argv[1 : 1 + (len(argv) > 1 and argv[1][:1] != "-")] = [word]
        else:
            value = draw(st.sampled_from(OPTION) | st.text(max_size=5) | st.floats(max_value=0).map(str))
            argv += [draw(st.sampled_from(one.opts)), value.replace("\x00", "")]
    if command.name == "demo":
        argv += ["--seed", "-1"]  # takes minutes where it is whole
    return {"base": base, "argv": argv}


@st.composite
def manifests(draw, base: str, world):
    """A case: a manifest, list of checksums, shard or table of an existing folder is not what it was."""
    name = draw(st.sampled_from(world.names(bases().BASES[base].folders)))
    was = world.read(name)
    if name.endswith(".json") and draw(st.booleans()):
        told = json.loads(was)
        if draw(st.booleans()):
            told.pop("checksum", None)
        found = whole(draw(spoiled(told)))
    elif name.endswith(".parquet") and draw(st.booleans()):
        rows = [{k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in pd.read_parquet(io.BytesIO(was)).to_dict("records")]  # fmt: skip
        found = parquet(draw(spoiled(rows[:6])))
    else:
        found = draw(damaged(was))
    without = [f"{folder}/checksums.txt" for folder in bases().BASES[base].folders] if draw(st.booleans()) else []
    return {"base": base, "files": {name: found}, "without": [path for path in without if path != name]}


@st.composite
def answers(draw, base: str):
    """A case: a server whose answer is spoiled."""
    good = bases().BASES[base].answer
    if draw(st.integers(0, 4)):
        return {"base": base, "answer": whole(draw(spoiled(good)))}
    return {"base": base, "answer": draw(damaged(whole(good)))}


def bases():
    """The module of the whole inputs, which is made of this one."""
    import fuzz_bases

    return fuzz_bases

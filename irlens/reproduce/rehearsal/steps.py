"""The process of a rehearsal: stand-ins made and every step run, in an environment that holds nothing else.

Started as `python -m irlens.reproduce.rehearsal.steps SPEC` with HF_HOME and IR_DATASETS_HOME in the rehearsal's folder,
offline: the hub's client and ir_datasets answer from there, so that no loader knows of a rehearsal.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from irlens.base import files, interrupts
from irlens.base.errors import UserError
from irlens.base.options import settings_from
from irlens.base.secrets import kept_off_streams, redacted
from irlens.base.worker import end_with_the_pipe
from irlens.reproduce.records import STAGES, Claim, Recipe, Step, Study
from irlens.reproduce.rehearsal import stub_judge
from irlens.reproduce.rehearsal.furnish import Model, data, furnish

REPORT = "report.json"


def as_json(recipe: Recipe, needed: list[Model], out: Path, devices: str | None = None) -> str:
    """What `main` reads: a recipe whose steps are cut, the stand-ins that it needs, the folder of its steps, and the workers."""
    plain = {"name": recipe.name, "title": recipe.title, "figure": recipe.figure, "preset": recipe.preset}
    plain["left_out"] = recipe.left_out
    steps = [{"stage": s.stage, "name": s.name, "settings": redacted(_given(s.settings))} for s in recipe.steps]
    told = {key: getattr(recipe, key) and _given(getattr(recipe, key)) for key in ("study", "claim")}
    models = [asdict(m) | {"source": str(m.source), "folder": isinstance(m.source, Path)} for m in needed]
    return json.dumps(
        {**plain, **told, "steps": steps, "models": models, "out": str(out), "devices": devices}, indent=1
    )


def _given(settings: Any) -> dict:
    """The settings that are not the default, which may be values that a recipe cannot write."""
    return {
        f.name: value
        for f in fields(settings)
        if (value := getattr(settings, f.name)) is not None and (f.default is MISSING or value != f.default)
    }


def _read(spec: dict) -> tuple[Recipe, list[Model]]:
    steps = tuple(
        Step(s["stage"], s["name"], settings_from(STAGES[s["stage"]], s["settings"], s["name"])) for s in spec["steps"]
    )
    told = {
        key: spec[key] and settings_from(kind, spec[key], key) for key, kind in (("study", Study), ("claim", Claim))
    }
    models = []
    for one in spec["models"]:
        folder = one.pop("folder")
        models.append(Model(**one | {"source": Path(one["source"]) if folder else one["source"]}))
    told["left_out"] = spec["left_out"]
    return Recipe(spec["name"], spec["title"], spec["figure"], spec["preset"], steps, **told), models


def main(home: Path) -> int:
    """Runs what `home`/spec.json says and writes `home`/report.json: seconds, sizes, and where and why it failed.

    The exit code is 0, 2 for a UserError, 1 for anything else.
    """
    from dataclasses import replace

    from irlens.reproduce import run

    spec = json.loads((home / "spec.json").read_text(encoding="utf-8"))
    recipe, needed = _read(spec)
    report: dict = {"seconds_of_stand_ins": None, "stand_ins": {}, "failed": None}
    began, where = time.monotonic(), "stand-ins"
    try:
        steps, report["stand_ins"] = furnish(needed, data(recipe.steps, home), home)
        report["seconds_of_stand_ins"] = round(time.monotonic() - began, 1)
        where = "figure and verdicts"  # unless the error says which step it came from
        with stub_judge.serving() as url:
            steps = stub_judge.told(steps, url, home)
            out = run.run(
                replace(recipe, steps=tuple(steps)),
                Path(spec["out"]),
                jobs=1,
                store=str(home / "store"),
                devices=spec["devices"],
            )
        report["failed"] = _without_training(out)
    except Exception as error:
        user = isinstance(error, UserError)
        why = " ".join(str(error).split()) if user else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        step = next(iter(getattr(error, "__notes__", ())), where)
        report["failed"] = {"step": step, "why": why, "user": user}
        if not user:
            traceback.print_exc()
    files.write_text(json.dumps(report, indent=1) + "\n", home / REPORT)
    return 0 if report["failed"] is None else 2 if report["failed"]["user"] else 1


def _without_training(out: Path) -> dict | None:
    """The first training that found nothing to rank, as a failure: it was not rehearsed."""
    ended = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["arms_ended"]
    for step, why in ended.items():
        return {
            "step": step,
            "why": f"the stand-in drew nothing to train on, so training was not rehearsed ({why})",
            "user": True,
        }
    return None


if __name__ == "__main__":
    end_with_the_pipe()
    interrupts.hear()
    try:
        with kept_off_streams():
            sys.exit(main(Path(sys.argv[1])))
    except interrupts.Interrupted as interrupt:
        sys.exit(interrupts.ended(interrupt))

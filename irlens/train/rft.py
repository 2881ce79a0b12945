"""RFT, the explicit form: a reward model learned from demonstrations against the policy's own draws, in turns with the policy.

Notation: x a prompt, y its demonstration, y' a draw of the policy, r(x, y) the reward model's score, pi_start the policy
before the first turn, beta the weight of the KL penalty (`kl_coef`). What is solved, with expectations over prompts:

    max_r E_y log pi_r(y | x),    pi_r = argmax_pi E_y'~pi r(x, y') - beta KL(pi || pi_start)

The gradient of the first is that of E_y r(x, y) - E_y'~pi_r r(x, y'), over beta: rewards rise on demonstrations and fall on
what the policy says. So turns alternate, turn s with the policy pi_s (pi_1 = pi_start):

1. y'_1 … y'_n are drawn from pi_s for each prompt of the demonstrations.
2. The reward model of the turn before (before the first: a model with a new head) goes on learning that demonstrations
   are above draws, by Bradley-Terry, as the authors' code has it; draws that repeat the demonstration are no pair:

       -(1 / n) sum_i log sigma(r(x, y) - r(x, y'_i))

   Near equal rewards its gradient is half that of the difference itself, and it ends where both are told apart, while the
   difference has no bound.
3. The policy learns from the same draws, each with the grade r(x, y') - beta log(pi_s(y' | x) / pi_start(y' | x)), whose
   expectation is what pi_r maximises. The source leaves the optimiser open and its code takes PPO, beta 0.05. Here it is
   PPO's clipped step with the leave-one-out mean of the other draws' grades as the baseline (`policy_gradient.rft`, RLOO):
   no third network, a critic, is trained, and draws, lists and steps are those of every other objective.

No step reads a verifier. The policy never sees a demonstration but through the reward. The implicit form (`irft`; SPIN) has
no reward model: r = beta log(pi / pi_before), and one loss is both steps.

Source: Li et al. 2024, "Getting More Juice Out of the SFT Data: Reward Learning from Human Demonstration Improves SFT for
LLM Alignment", arXiv 2405.17888, its explicit algorithm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import seeds
from irlens.base.devices import HERE, Devices
from irlens.base.errors import NothingToRank, UserError
from irlens.base.files import write_parquet
from irlens.base.progress import Say
from irlens.negatives.lists import usable
from irlens.negatives.text_similarity import without_spacing
from irlens.train.reranker import in_folder
from irlens.train.reranker.in_folder import Phase
from irlens.train.reranker.options import RATES, Training

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.tasks.contract import Task
    from irlens.train.options import LarpoOptions

FOLDER = "reward"  # of an iteration, which holds the reward model that it learned
SHARED = ("batch_lists", "lists_at_once", "lora_rank", "save_dtype", "report_to")  # with the policy's training


@dataclass(frozen=True)
class Base:
    """What the first reward model starts from: its name, its weights, the tokens that it reads at most, and what it does not
    read of the data set's instruction (`base.unread`): a policy without a chat template was never told it either."""

    name: str
    weights: Path
    limit: int | None = None
    unread: str = ""

    @classmethod
    def of(cls, name: str, weights: Path, pad_token: str | None, instruction: str = "") -> Base:
        """Raises UserError for a model of which no reward model can be made, or whose tokenizer cannot pad."""
        from irlens.rerank.reward import LONGEST
        from irlens.train.reranker import base

        limit = base.reader(weights, base.tokenizer(weights, pad_token), {}).limit
        return cls(name, weights, None if limit >= LONGEST else limit, base.unread(weights, instruction))


def start_of(name: str) -> tuple[str, Path]:
    """(its name, its files) of a language model, an encoder or a reward model that a reward model is to start from.

    Raises UserError for one that is not known or not to be had.
    """
    from irlens.models import catalog

    known = catalog.model(name) if name in catalog.MODELS else catalog.reward(name) or catalog.model(name)
    return known.name, catalog.fetch(known)


@dataclass(frozen=True)
class LearnedReward:
    """The reranker of RFT's loop: (run, s) → the run with `reward`, by the model that it learns from that very run.

    task: its topics have the demonstrations (`solution`). ratio: (run, s) → log π_s(y) − log π_start(y) of each row, in
    nats; asked from the second turn on. place: where iteration s is kept, the reward model in its folder `reward`. root:
    the folder whose checksums tell what is there, where a command has one.
    """

    options: LarpoOptions
    task: Task
    base: Base
    ratio: Callable[[pd.DataFrame, int], np.ndarray]
    place: Callable[[int], Path]
    root: Path | None = None
    devices: Devices = HERE
    say: Say = print
    relative: bool = field(default=False, init=False)

    def __call__(self, run: pd.DataFrame, s: int) -> pd.DataFrame:
        """The run with `learned_reward` r, `log_ratio` log(π_s / π_start), and `reward`, r less the KL penalty."""
        from irlens.rerank import judges

        model = self.learn(run, s).parent
        judge = judges.of_reward(str(model), self.task.instruction, say=self.say, devices=self.devices)
        grades = judge.grade(run, self._topics(run), self.place(s) / "scores")
        learned = grades["relevance"].to_numpy(dtype=float)
        moved = self.ratio(run, s) if s > 1 else 0.0 * learned
        self.say(f"iteration {s}: {self._told(learned, s)}")
        more = {"learned_reward": learned, "log_ratio": moved, "truncated": grades["truncated"].to_numpy()}
        return run.assign(reward=learned - self.options.learning.kl_coef * moved, **more)

    def learn(self, run: pd.DataFrame, s: int) -> Path:
        """The folder of the reward model of turn s, which goes on from that of the turn before.

        Raises NothingToRank if every draw repeats its demonstration, UserError if no list fits or the loss is not finite.
        """
        here, before = self.place(s) / FOLDER, self.place(s - 1) / FOLDER / in_folder.MODEL
        if not (here / in_folder.LISTS).is_file():
            lists = demonstrated(run, self._topics(run), self.task.instruction)
            if lists.empty:
                raise NothingToRank(
                    f"iteration {s}: every finished draw says what its demonstration says, so no reward is to be learned"
                )
            write_parquet(lists, here / in_folder.LISTS)
        weights, told = self.base.weights if s == 1 else before, training(self.options, self.base, s)
        phase = Phase(
            told,
            here,
            self.base.name,
            weights,
            self.options.learning.pad_token,
            self.root,
            f"the reward of iteration {s}",
            self.base.unread,
        )
        return in_folder.fit(phase, self.devices, self.say)

    def _topics(self, run: pd.DataFrame) -> pd.DataFrame:
        topics = self.task.topics
        return topics[topics["query_id"].isin(run["query_id"])].reset_index(drop=True)

    def _told(self, learned: np.ndarray, s: int) -> str:
        """What the reward learned from, in words."""
        account = json.loads((self.place(s) / FOLDER / "account.json").read_text(encoding="utf-8"))
        lists, draws = account["lists"], account["responses"] - account["lists"]
        return f"a reward learned from {lists:,} demonstrations against {draws:,} draws, which it gives {learned.mean():.2f} in the mean"  # fmt: skip


def forget_unrewarded(out: Path) -> None:
    """Removes the runs in `out` whose reward model is not there, or not whole: they are made together."""
    for run in out.glob("iteration-*/run.parquet"):
        here = run.with_name(FOLDER)
        if not all((here / name).exists() for name in (in_folder.MODEL, *in_folder.MADE_WITH)):
            run.unlink()


def training(options: LarpoOptions, base: Base, s: int) -> Training:
    """How the reward model of turn s is trained."""
    from irlens.models.weights import SMALL, stored

    asked = options.learning
    rate = asked.learning_rate or RATES[stored(base.weights)[0] >= SMALL]
    seed = seeds.folded(seeds.derive(options.seed, s, "reward"))
    shared = {name: getattr(options, name) for name in SHARED}
    own = {"epochs": asked.epochs, "learning_rate": rate, "max_length": base.limit, "seed": seed}
    return Training(objective="bradley-terry", **own, **shared)


def demonstrated(run: pd.DataFrame, topics: pd.DataFrame, instruction: str = "") -> pd.DataFrame:
    """A list per topic for the reward model: its demonstration (grade 1), and all its finished draws that say something
    else (grade 0), equal texts as often as they were drawn. Topics without such a draw, or a demonstration, give none.

    Columns: query_id, query, doc_id, text, grade, tier, iteration, list, messages.
    """
    import pandas as pd

    from irlens.models.chat import conversations

    asked, drawn = conversations(topics, instruction), dict(iter(run[usable(run)].groupby("query_id", sort=False)))
    rows = []
    for query_id, query, solution in zip(topics["query_id"], topics["query"], topics["solution"]):
        if not solution or query_id not in drawn:
            continue
        own = drawn[query_id]
        others = own[own["text"].map(without_spacing) != without_spacing(solution)]
        told = [(f"{query_id}/gold", solution, 1.0, "positive")] if len(others) else []
        told += [(doc_id, text, 0.0, "own") for doc_id, text in zip(others["doc_id"], others["text"])]
        rows += [(query_id, query, *one, 0, 0, asked[query_id]) for one in told]
    return pd.DataFrame(
        rows, columns=["query_id", "query", "doc_id", "text", "grade", "tier", "iteration", "list", "messages"]
    )


def demonstrations(task: Task, say: Say) -> Task:
    """The task with its demonstrated prompts alone; a line counts the others. Raises UserError if there is none."""
    from dataclasses import replace

    topics = task.topics
    have = topics["solution"].map(lambda text: isinstance(text, str) and bool(text.strip())) if "solution" in topics.columns else None  # fmt: skip
    if have is None or not have.any():
        raise UserError(
            f"objective 'rft': {task.name} ({task.split}) has no solutions, and a reward is learned from demonstrations; "
            "--columns solution=COLUMN says where they are"
        )
    if not have.all():
        say(f"left out {int((~have).sum()):,} of {len(have):,} prompts of {task.name} ({task.split}): not demonstrated")
    return replace(task, topics=topics[have].reset_index(drop=True))

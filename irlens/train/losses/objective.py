"""Every objective by name: a loss over lists with its parameters, its defaults, and what it asks of the lists.

`OBJECTIVES` holds LarPO's four (`ranking`) and the losses that they are compared with (`preference`, `policy_gradient`).
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import torch
from torch import Tensor

from irlens.base import plugins
from irlens.base.errors import UserError, did_you_mean
from irlens.train.losses import policy_gradient, preference
from irlens.train.losses.ranking import Gains, contrastive, lambdarank, listmle, pairwise
from irlens.train.losses.scores import Scores, above, nll_of_best


@dataclass(frozen=True)
class Objective:
    """A loss over lists, by name, with what it asks of the lists it is given.

    Call it with a batch's scores and any of its parameters: `objective(scores, beta=0.05)`. None means the default.
    Three options are common to all:

    nll: adds nll times the negative log-likelihood per token of the list's best candidates (the mean over them, then over
        the lists that say something), as RPO does (Pang et al. 2024, arXiv 2404.19733). Off (0) unless the
        loss has such a term of its own; then this is its weight, and the loss says how it counts tokens.
    length_normalised: divides the log-probabilities of policy and reference by the response's tokens before the loss
        sees them, so gamma(y) is beta times a mean over tokens. What a loss takes per token anyway stays as it is, and
        so do lengths that it reads.
    wpo: weighs the loss of each list, without `nll`, by how likely the policy is to draw its candidates (`Scores.likely`).
    """

    name: str
    loss: Callable[..., Tensor]  # loss(scores, **parameters)
    uses_reference: bool
    positives: int  # candidates of a list, by default
    negatives: int
    source: str
    needs_negative: bool = True
    mismatched: bool = False  # asks for Scores.mismatched
    by_token: bool = False  # asks for Scores.by_token
    all_draws: bool = False  # a list holds all draws of a prompt, equal texts too
    gold: bool = False  # the positive is the task's demonstration, by default; else the best own response
    above_zero: tuple[str, ...] = ("beta",)  # parameters that may not be 0
    learns_reward: bool = False  # its grades come from a reward model that every iteration learns (`train.rft`)
    model_beta: bool = False  # a beta that is not given is what suits the model (its catalog entry), not the default

    @property
    def parameters(self) -> Mapping[str, float | str]:
        """The loss's own parameters and their defaults. A bool is a switch, 0 or 1; a text is one of `choices`."""
        return {p.name: p.default for p in inspect.signature(self.loss).parameters.values() if p.name != "scores"}

    def choices(self, name: str) -> tuple[str, ...]:
        """What a parameter whose default is a text may be: what its annotation, a `Literal`, lists."""
        return get_args(get_type_hints(self.loss).get(name))

    def resolve(self, **given: float | str | None) -> dict[str, float | str]:
        """Every parameter's value, `nll` among them, with the defaults for what is not given or None.

        Raises UserError for a parameter that the objective does not have, or a value out of range.
        """
        known = {"nll": 0.0} if self.needs_negative else {}  # the loss of a list without negatives is the NLL itself
        known |= self.parameters
        for name, value in given.items():
            if value is None:
                continue
            if name not in known:
                hint = did_you_mean(name, known) if known else "it takes none"
                raise UserError(f"objective {self.name!r} has no parameter {name!r}; {hint}")
            if isinstance(known[name], str):
                known[name] = _chosen(self.name, name, value, self.choices(name))
            else:
                whole = get_type_hints(self.loss).get(name) is int
                known[name] = _checked(
                    f"objective {self.name!r}: {name}", value, known[name], whole, name in self.above_zero
                )
        return known

    def counts(self, grade: Tensor, mask: Tensor) -> Tensor:
        """[B] bool: the lists that the loss is a mean over, of grade[B, L] and mask[B, L]: those with two different
        grades, or, where no negative is needed, with a candidate. By them a step's parts are weighed."""
        return above(grade, mask).any(2).any(1) if self.needs_negative else mask.any(1)

    def __call__(
        self,
        scores: Scores,
        *,
        length_normalised: bool = False,
        wpo: bool = False,
        nll: float | None = None,
        **parameters: float | str | None,
    ) -> Tensor:
        """The loss of a batch, a scalar in at least float32; 0 with zero gradient for a batch that says nothing."""
        values = self.resolve(nll=nll, **parameters)
        if scores.mask.numel() == 0:
            return scores.policy.sum()
        if length_normalised:
            scores = scores.normalise()
        own = {name: values[name] for name in self.parameters}
        loss = self._weighted(scores, own) if wpo else self.loss(scores, **own)
        if "nll" in own or not values.get("nll"):
            return loss
        return loss + values["nll"] * nll_of_best(scores)

    def _weighted(self, scores: Scores, own: dict) -> Tensor:
        """The mean over lists of each one's own loss, times its weight."""
        counted, weights = self.counts(scores.grade, scores.mask), scores.likely
        losses = [weights[b] * self.loss(scores.only(b), **own) for b in counted.nonzero()[:, 0].tolist()]
        return torch.stack(losses).mean() if losses else 0 * scores.policy.sum()


def _chosen(objective: str, name: str, value, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UserError(f"objective {objective!r}: {name} is one of {', '.join(choices)}, got {value!r}")
    return value


def _checked(what: str, value: float, default: float, whole: bool, above_zero: bool) -> float:
    """A parameter's value as the loss takes it: a switch, a whole number of at least 1, or a number of 0 or more."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{what} must be a finite number, got {value!r}")
    if isinstance(default, bool) and value not in (0, 1):
        raise UserError(f"{what} is a switch, 0 or 1, got {value!r}")
    if whole and (value < 1 or value != int(value)):
        raise UserError(f"{what} must be a whole number of at least 1, got {value!r}")
    if value < 0 or (value == 0 and above_zero):
        raise UserError(f"{what} must be {'above 0' if above_zero else '0 or more'}, got {value!r}")
    return bool(value) if isinstance(default, bool) else int(value) if whole else float(value)


def _pairwise(scores: Scores, beta: float = 0.1) -> Tensor:
    return pairwise(beta * scores.log_ratio, scores.grade, scores.mask)


def _contrastive(scores: Scores, beta: float = 0.1) -> Tensor:
    return contrastive(beta * scores.log_ratio, scores.grade, scores.mask)


def _lambdarank(scores: Scores, beta: float = 0.1, weighted: bool = False, gains: Gains = "grades") -> Tensor:
    return lambdarank(beta * scores.log_ratio, scores.grade, scores.mask, weighted, gains)


def _listmle(scores: Scores, beta: float = 0.1) -> Tensor:
    return listmle(beta * scores.log_ratio, scores.grade, scores.mask)


def _lipo_lambda(scores: Scores, beta: float = 0.1, gains: Literal["normalised", "ranked"] = "normalised") -> Tensor:
    """LambdaRank weighted as LiPO has it: whatever the grades, within a list they run from 0 to 1."""
    return lambdarank(beta * scores.log_ratio, scores.grade, scores.mask, True, gains)


def _all_draws(name: str, loss: Callable[..., Tensor], source: str, **more: bool) -> Objective:
    return Objective(name, loss, True, 1, 1, source, by_token=True, all_draws=True, above_zero=("budget",), **more)


_WARM = {"model_beta": True, "above_zero": ("beta", "alpha")}  # alpha: a temperature of the grades


# name, loss, whether it reads the reference, positives and negatives per list, source. The four of LarPO have the
# paper's lists (Tables 2 and 3); of the others, those over one pair have a pair, those over a list as much as LarPO's
# own, RRHF, over all pairs, LambdaRank's, and policy gradients all that was drawn.
OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("pairwise", _pairwise, True, 1, 1, "Jin et al. 2025, Table 1; Rafailov et al. 2023", model_beta=True),
        Objective(
            "contrastive",
            _contrastive,
            True,
            1,
            3,
            "Jin et al. 2025, Table 1; van den Oord et al. 2018",
            model_beta=True,
        ),
        Objective("lambdarank", _lambdarank, True, 2, 2, "Jin et al. 2025, Table 1; Burges 2010", model_beta=True),
        Objective("listmle", _listmle, True, 2, 2, "Jin et al. 2025, Table 1; Xia et al. 2008", model_beta=True),
        Objective("sft", preference.sft, False, 1, 0, "maximum likelihood", needs_negative=False),
        Objective("rrhf", preference.rrhf, False, 2, 2, "Yuan et al. 2023, arXiv 2304.05302"),
        Objective("slic-hf", preference.slic_hf, False, 1, 1, "Zhao et al. 2023, arXiv 2305.10425"),
        Objective("ipo", preference.ipo, True, 1, 1, "Azar et al. 2023, arXiv 2310.12036", model_beta=True),
        Objective("cpo", preference.cpo, False, 1, 1, "Xu et al. 2024, arXiv 2401.08417", model_beta=True),
        Objective(
            "kto",
            preference.kto,
            True,
            1,
            1,
            "Ethayarajh et al. 2024, arXiv 2402.01306",
            mismatched=True,
            model_beta=True,
        ),
        Objective("r-dpo", preference.r_dpo, True, 1, 1, "Park et al. 2024, arXiv 2403.19159", model_beta=True),
        Objective("simpo", preference.simpo, False, 1, 1, "Meng et al. 2024, arXiv 2405.14734"),
        Objective(
            "spin", preference.spin, True, 1, 1, "Chen et al. 2024, arXiv 2401.01335", gold=True, model_beta=True
        ),
        Objective("irft", preference.irft, True, 1, 1, "Li et al. 2024, arXiv 2405.17888", gold=True, model_beta=True),
        Objective("lipo-lambda", _lipo_lambda, True, 2, 2, "Liu et al. 2024, arXiv 2402.01878", model_beta=True),
        Objective("dpo-pl", _listmle, True, 2, 2, "Rafailov et al. 2023, arXiv 2305.18290, eq. 20", model_beta=True),
        Objective("s-dpo", _contrastive, True, 1, 3, "Chen et al. 2024, arXiv 2406.09215", model_beta=True),
        Objective("infonca", preference.infonca, True, 1, 3, "Chen et al. 2024, arXiv 2402.05369", **_WARM),
        Objective("nca", preference.nca, True, 1, 3, "Chen et al. 2024, arXiv 2402.05369", **_WARM),
        Objective("swepo", preference.swepo, True, 2, 2, "Gupta et al. 2024, arXiv 2412.04628", model_beta=True),
        Objective("rebel", preference.rebel, True, 1, 1, "Gao et al. 2024, arXiv 2404.16767", model_beta=True),
        Objective(
            "apo-zero",
            preference.apo_zero,
            True,
            1,
            1,
            "D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7",
            model_beta=True,
        ),
        Objective(
            "apo-down",
            preference.apo_down,
            True,
            1,
            1,
            "D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 8",
            model_beta=True,
        ),
        Objective("sppo", preference.sppo, True, 1, 1, "Wu et al. 2024, arXiv 2405.00675, eq. 4.7", model_beta=True),
        Objective("orpo", preference.orpo, False, 1, 1, "Hong et al. 2024, arXiv 2403.07691, eqs. 6 and 7"),
        _all_draws("grpo", policy_gradient.grpo, "Shao et al. 2024, arXiv 2402.03300, eq. 3"),
        _all_draws("dr-grpo", policy_gradient.dr_grpo, "Liu et al. 2025, arXiv 2503.20783"),
        _all_draws("rloo", policy_gradient.rloo, "Ahmadian et al. 2024, arXiv 2402.14740"),
        _all_draws("pkpo", policy_gradient.pkpo, "Walder & Karkhanis 2025, arXiv 2505.15201, eqs. 19 and 33"),
        _all_draws("best-minus-second", policy_gradient.best_minus_second, "Tang et al. 2025, arXiv 2503.19595"),
        _all_draws("rft", policy_gradient.rft, "Li et al. 2024, arXiv 2405.17888", learns_reward=True),
    )
}


def get(name: str) -> Objective:
    """The objective of that name, or of one's own function `module:function` of the scores and parameters with defaults,
    which may read the reference and gets a positive and three negatives per list by default. One with an attribute
    `by_token` or `all_draws` that is true gets these. Raises UserError for an unknown one.
    """
    if plugins.named(name):
        loss = plugins.function(name, "--objective")
        asked = {wish: bool(getattr(loss, wish, False)) for wish in ("by_token", "all_draws")}
        own = Objective(name, loss, True, 1, 3, name, **asked)
        for parameter, default in own.parameters.items():
            listed = isinstance(default, str) and default in own.choices(parameter)
            if not listed and not isinstance(default, (int, float)):
                raise UserError(
                    f"--objective {name}: it must take `scores`, and parameters whose defaults are numbers, or texts that "
                    "their annotation Literal[...] lists"
                )
        return own
    if name not in OBJECTIVES:
        raise UserError(f"no objective {name!r}; {did_you_mean(name, OBJECTIVES)}")
    return OBJECTIVES[name]


def names() -> list[str]:
    """The names of all objectives, LarPO's own first."""
    return list(OBJECTIVES)

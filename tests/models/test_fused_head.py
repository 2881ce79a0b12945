"""The fused head: exact in value and gradient, and no tensor of tokens × vocabulary."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irlens.models import fused_head as head
from irlens.models.fused_head import fused_head, fused_logprobs


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setitem(head.TILE, "cpu", 1)  # the least width: 128 columns


def inputs(tokens=5, vocabulary=300, width=7, bias=False, dtype=torch.float64):
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=dtype, requires_grad=True)
    offset = torch.randn(vocabulary, dtype=dtype, requires_grad=True) if bias else None
    target = torch.tensor([0, 127, 128, 299, 5, 260, 3, 4])[:tokens]
    return hidden, weight, offset, target


def plain(hidden, weight, bias, target, divisor=1.0, cap=None):
    logits = torch.nn.functional.linear(hidden, weight, bias) / divisor
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return logits.log_softmax(-1)[torch.arange(len(target)), target]


def test_by_hand():
    """Logits (ln 1, ln 2, ln 5): log-probabilities ln 1/8, ln 1/4, ln 5/8."""
    weight = torch.tensor([[1.0], [2.0], [5.0]]).log()
    found = fused_logprobs(torch.ones(3, 1), weight, None, torch.arange(3))
    assert found.exp().tolist() == pytest.approx([1 / 8, 1 / 4, 5 / 8])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("divisor", "cap"), [(1.0, None), (1.0, 2.0), (4.0, None), (0.5, 3.0)])
def test_value_and_gradient_in_float64(small_tiles, bias, divisor, cap):
    hidden, weight, offset, target = inputs(bias=bias)
    found = fused_logprobs(hidden, weight, offset, target, divisor, cap)
    torch.testing.assert_close(found, plain(hidden, weight, offset, target, divisor, cap))
    leaves = [x for x in (hidden, weight, offset) if x is not None]
    upstream = torch.randn(len(target), dtype=torch.float64)
    ours = torch.autograd.grad(found, leaves, upstream)
    theirs = torch.autograd.grad(plain(hidden, weight, offset, target, divisor, cap), leaves, upstream)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_gradcheck(small_tiles):
    hidden, weight, offset, target = inputs(tokens=3, vocabulary=130, width=2, bias=True)
    target = target.clamp(max=129)
    assert torch.autograd.gradcheck(lambda *x: fused_logprobs(*x, target, 2.0, 3.0), (hidden, weight, offset))


def test_a_frozen_weight_gets_no_gradient_and_no_tokens_are_no_error(small_tiles):
    hidden, weight, _, target = inputs()
    fused_logprobs(hidden, weight.detach(), None, target).sum().backward()
    assert hidden.grad is not None
    none = fused_logprobs(hidden[:0], weight, None, target[:0])
    none.sum().backward()
    assert none.shape == (0,) and weight.grad.abs().sum() == 0


def test_large_logits_do_not_overflow(small_tiles):
    hidden, weight, _, target = inputs(dtype=torch.float32)
    found = fused_logprobs(hidden * 1e4, weight, None, target)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, plain(hidden * 1e4, weight, None, target))


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_close_and_gives_float32(small_tiles, autocast):
    hidden, weight, _, target = inputs(tokens=8, width=32, dtype=torch.float32)
    exact = plain(hidden, weight, None, target)
    (exact_gradient,) = torch.autograd.grad(exact.sum(), weight)
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            found = fused_logprobs(hidden, weight, None, target)
        (gradient,) = torch.autograd.grad(found.sum(), weight)
    else:
        low = weight.bfloat16().detach().requires_grad_()
        found = fused_logprobs(hidden.bfloat16(), low, None, target)
        (gradient,) = torch.autograd.grad(found.sum(), low)
        assert gradient.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0.02)
    torch.testing.assert_close(gradient.float(), exact_gradient, atol=0.05, rtol=0.05)


class Largest(TorchDispatchMode):
    """Notes the most numbers that any result of any operation holds, gradients and views included."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return out


class Called(nn.Linear):
    """A linear head that is not the stock one, as adapters and quantised layers are."""

    def forward(self, hidden):
        return super().forward(hidden) * 1.0


class Model(nn.Module):
    """The least that `fused_head` expects of a model."""

    def __init__(self, lm_head, **settings):
        super().__init__()
        self.lm_head = lm_head

        class Config:
            vocab_size = lm_head.out_features

            def get_text_config(self):
                return self

        self.config = Config()
        vars(self.config).update(settings)

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, hidden):
        logits = self.lm_head(hidden)
        if getattr(self.config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / self.config.final_logit_softcapping) * self.config.final_logit_softcapping
        return logits


@pytest.mark.parametrize("kind", [nn.Linear, Called])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_no_tensor_of_tokens_by_vocabulary_forward_or_backward(monkeypatch, kind, cap):
    tokens, vocabulary = 400, 3_000
    monkeypatch.setitem(head.TILE, "cpu", 2**16)
    torch.manual_seed(0)
    model = Model(kind(8, vocabulary, bias=False), final_logit_softcapping=cap)
    hidden = torch.randn(1, tokens, 8, requires_grad=True)
    where, target = torch.arange(tokens), torch.randint(vocabulary, (tokens,))
    upstream = torch.randn(tokens)
    with Largest() as seen, fused_head(model, where, target):
        found = model(hidden)
        ours = torch.autograd.grad(found, [hidden, model.lm_head.weight], upstream)
    assert seen.numbers <= 2**16
    with Largest() as seen:
        theirs = model(hidden)[0].log_softmax(-1).gather(-1, target[:, None])[:, 0]
        gradients = torch.autograd.grad(theirs, [hidden, model.lm_head.weight], upstream)
    assert seen.numbers >= tokens * vocabulary, "the plain way would be noticed"
    torch.testing.assert_close(found, theirs)
    for a, b in zip(ours, gradients):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_model_is_left_as_it_was():
    model = Model(nn.Linear(4, 10, bias=False), final_logit_softcapping=0.5)
    hidden = torch.randn(1, 3, 4)
    before = model(hidden)
    with pytest.raises(RuntimeError, match="stop"), fused_head(model, torch.tensor([1]), torch.tensor([2])):
        assert model(hidden).shape == (1,)
        raise RuntimeError("stop")
    assert model.config.final_logit_softcapping == 0.5
    assert "forward" not in vars(model.lm_head)
    torch.testing.assert_close(model(hidden), before)


def test_a_forward_that_was_put_on_the_head_before_is_kept_and_used():
    model = Model(nn.Linear(4, 10, bias=False))
    stock = model.lm_head.forward
    model.lm_head.forward = lambda hidden: stock(hidden) * 3.0
    hidden = torch.randn(1, 3, 4)
    expected = (model(hidden)[0, 1].log_softmax(-1))[2]
    with fused_head(model, torch.tensor([1]), torch.tensor([2])):
        torch.testing.assert_close(model(hidden)[0], expected)
    torch.testing.assert_close(model(hidden)[0, 1].log_softmax(-1)[2], expected)


class Scaled(Model):
    """Multiplies its logits by an attribute of its own, as Cohere does."""

    def __init__(self, lm_head, **settings):
        super().__init__(lm_head, **settings)
        self.logit_scale = self.config.logit_scale

    def forward(self, hidden):
        return self.lm_head(hidden) * self.logit_scale


def test_a_factor_that_the_model_copied_from_its_settings_is_taken_once_and_given_back():
    model = Scaled(nn.Linear(4, 10, bias=False), logit_scale=0.25)
    hidden = torch.randn(1, 3, 4)
    expected = model(hidden)[0, 1].log_softmax(-1)[2]
    with fused_head(model, torch.tensor([1]), torch.tensor([2])):
        torch.testing.assert_close(model(hidden)[0], expected)
    assert model.logit_scale == model.config.logit_scale == 0.25

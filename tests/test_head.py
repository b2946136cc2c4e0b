"""The fused head against plain float64 autograd, in value and gradient."""

import pytest
import torch
from torch import nn

from midsentence.errors import UserError
from midsentence.parts import head as head_module
from midsentence.parts import log_softmax as module
from midsentence.parts.head import BagOfWords, Head, Writer

V, H, M = 53, 16, 37


def make(tied, width=H, **settings):
    embedding = nn.Embedding(V, width)
    head = Head(H, embedding, tied=tied, **settings)
    with torch.no_grad():
        head.bias.normal_()
    return head


def plain(head, hidden, targets):
    hidden = hidden if head.map is None else head.map(hidden)
    logits = nn.functional.linear(hidden, head.table[2:], head.bias)
    logits = nn.functional.pad(logits, (2, 0), value=-torch.inf)
    return logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(1)


def inputs(dtype):
    hidden = torch.randn(M, H, dtype=dtype, requires_grad=True)
    return hidden, torch.randint(2, V, (M,)), torch.rand(M, dtype=dtype)


def gradients(head, hidden, log_prob, weight):
    return torch.autograd.grad((log_prob * weight).sum(), [hidden, *head.parameters()])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("width", [H, 10])
@pytest.mark.parametrize(
    "chunk, waits", [(1, False), (3 * V, False), (3 * V, True), (1 << 22, False), (1 << 22, True)]
)
def test_value_and_gradient_equal_plain_autograd(monkeypatch, tied, width, chunk, waits):
    monkeypatch.setattr(module, "waits", lambda device: waits)
    monkeypatch.setattr(module, "CHUNK", chunk)
    head = make(tied, width, precision="float32").double()
    hidden, targets, weight = inputs(torch.float64)

    fused, exact = head.log_prob(hidden, targets), plain(head, hidden, targets)
    assert torch.allclose(fused, exact, atol=1e-12)
    ours, theirs = (gradients(head, hidden, x, weight) for x in (fused, exact))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_label_smoothing_is_cross_entropys_and_only_in_training(tied):
    head = make(tied, precision="float32", label_smoothing=0.2).double()
    hidden, targets, weight = inputs(torch.float64)
    logits = nn.functional.linear(hidden, head.table[2:], head.bias)
    exact = -nn.functional.cross_entropy(logits, targets - 2, label_smoothing=0.2, reduction="none")
    smooth = head.log_prob(hidden, targets)
    assert torch.allclose(smooth, exact, atol=1e-12)
    ours, theirs = (gradients(head, hidden, x, weight) for x in (smooth, exact))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert torch.allclose(head.eval().log_prob(hidden, targets), plain(head, hidden, targets))


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_products_stay_close_and_sums_are_wide(tied):
    head = make(tied, precision="bfloat16")
    hidden, targets, weight = inputs(torch.float32)
    fused, exact = head.log_prob(hidden, targets), plain(head, hidden, targets)
    assert fused.dtype == torch.float32
    assert (fused - exact).abs().max() < 0.06
    assert (fused <= 0).all()
    ours, theirs = (gradients(head, hidden, x, weight) for x in (fused, exact))
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("words", [{}, {"gradient_words": 9}, {"sampled_words": 9}])
@pytest.mark.parametrize("tied", [False, True])
def test_rows_that_fill_up_change_nothing(monkeypatch, tied, words):
    """Of more rows than there are, the same draws, values and gradients."""
    monkeypatch.setattr(module, "CHUNK", 5 * V)
    head = make(tied, precision="bfloat16", **words).train()
    hidden, targets, weight = inputs(torch.float32)
    found = []
    for even in 1, 16:
        monkeypatch.setattr(module, "EVEN", even)
        torch.manual_seed(3)
        value = head.log_prob(hidden, targets)
        found.append([value, *gradients(head, hidden, value, weight)])
    for plainly, filled in zip(*found, strict=True):
        assert filled.shape == plainly.shape
        torch.testing.assert_close(filled, plainly, rtol=1e-3, atol=1e-3)


def test_without_a_gradient_no_more_logits_are_held_than_a_chunk(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4 * V)
    held, plainly = [], module._logits

    def watched(*given):
        found = plainly(*given)
        held.append(len(found))
        return found

    monkeypatch.setattr(module, "_logits", watched)
    head = make(True, precision="bfloat16")
    hidden, targets, _ = inputs(torch.float32)
    found = head.log_prob(hidden, targets)
    even = M + -M % module.EVEN
    assert held == [even]  # kept for the gradient
    held.clear()
    with torch.no_grad():
        assert torch.allclose(head.log_prob(hidden, targets), found, atol=1e-6)
    assert max(held) <= 4
    assert sum(held) == even


@pytest.mark.parametrize(("tied", "chunk"), [(False, M * V // 3), (True, 1 << 22)])
def test_a_sampled_gradient_has_the_exact_value_and_the_exact_mean(monkeypatch, tied, chunk):
    """Weights of either sign, as importance weighting and doubly reparameterised gradients have."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(1)
    head = make(tied, precision="float32", gradient_words=12).double()
    hidden, targets, weight = inputs(torch.float64)
    weight = weight - 0.3
    exact = plain(head, hidden, targets)
    true = torch.cat([g.flatten() for g in gradients(head, hidden, exact, weight)])
    found = []
    for _ in range(800):
        sampled = head.log_prob(hidden, targets)
        assert torch.allclose(sampled, exact, atol=1e-12)
        found.append(torch.cat([g.flatten() for g in gradients(head, hidden, sampled, weight)]))
    found = torch.stack(found)
    off = (found.mean(0) - true) / (found.std(0) / len(found) ** 0.5 + 1e-9)
    assert 0.4 < off.square().mean() < 1.8  # in standard errors, of some forty independent draws
    assert off.abs().max() < 5.5
    every = gradients(head, hidden, head.eval().log_prob(hidden, targets), weight)
    assert torch.allclose(torch.cat([g.flatten() for g in every]), true)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gradient_by_all_words_but_one_is_nearly_exact(precision):
    head = make(False, precision=precision, gradient_words=V - 3)
    hidden, targets, weight = inputs(torch.float32)
    exact = gradients(head, hidden, plain(head, hidden, targets), weight)
    for a, b in zip(
        gradients(head, hidden, head.log_prob(hidden, targets), weight), exact, strict=True
    ):
        assert (a - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("tied", [False, True])
def test_a_sampled_normaliser_is_right_in_its_mean(monkeypatch, tied):
    """1 / p is linear in the normaliser: its mean over the draws is exact."""
    monkeypatch.setattr(module, "PILOT", 2)
    monkeypatch.setattr(module, "CHUNK", M * V // 3)
    torch.manual_seed(1)
    head = make(tied, precision="float32", sampled_words=9).double()
    hidden, targets, _ = inputs(torch.float64)
    with torch.no_grad():
        head.table /= head.table.std()
        hidden /= 4
        exact = plain(head, hidden, targets)
    found = torch.stack([1 / head.log_prob(hidden, targets).detach().exp() for _ in range(1500)])
    off = (found.mean(0) - 1 / exact.exp()) / (found.std(0) / len(found) ** 0.5)
    assert found.std(0).min() > 0
    assert off.abs().max() < 4.5
    assert head.log_prob(hidden[:0], targets[:0]).shape == (0,)
    assert torch.allclose(head.eval().log_prob(hidden, targets), exact, atol=1e-12)


def test_the_rows_that_say_which_words_have_mass_are_of_all_places(monkeypatch):
    """A batch of sentences of 16 words, whose first words are all alike."""
    seen = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, d: seen.append(x) or softmax(x, d))
    sentences, length = module.PILOT, 16
    place = torch.arange(length).repeat(sentences)
    hidden = nn.functional.one_hot(place, length).float().requires_grad_()
    head = Head(length, nn.Embedding(V, length), precision="float32", sampled_words=9)
    with torch.no_grad():
        head.table.copy_(torch.arange(V * length).view(V, length))
    head.log_prob(hidden, torch.full((len(place),), 5))
    (pilot,) = seen
    counts = pilot[:, 0].unique(return_counts=True)[1]
    assert len(pilot) == module.PILOT and len(counts) >= length / 2 and counts.max() <= 16


def test_by_itself_a_training_step_on_a_cpu_looks_at_some_words(monkeypatch):
    monkeypatch.setattr(head_module, "SAMPLED", 9)
    head = make(False, precision="float32").double()
    hidden, targets, _ = inputs(torch.float64)
    exact = plain(head, hidden, targets)
    assert not torch.allclose(head.log_prob(hidden, targets), exact, atol=1e-3)
    assert torch.allclose(head.eval().log_prob(hidden, targets), exact, atol=1e-12)
    asked = [make(False, sampled_words=n).drawn for n in (0, 5)]
    assert [*asked, make(False, gradient_words=7).drawn, head.to("meta").drawn] == [0, 5, 7, 0]


@pytest.mark.parametrize("chunk", [3 * 9, 1 << 22])
@pytest.mark.parametrize("tied", [False, True])
def test_the_gradient_of_a_sampled_normaliser_is_its_own(monkeypatch, tied, chunk):
    """Beside autograd on the words that were drawn, targets among them and not."""
    drawn, weights = torch.arange(2, V - 2, 3), torch.linspace(1, 3, len(range(2, V - 2, 3)))
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "draw_words", lambda mass, count: (drawn, weights.double()))
    head = make(tied, precision="float32", sampled_words=9).double()
    hidden, targets, weight = inputs(torch.float64)
    weight = weight - 0.3
    logits = hidden @ head.table[2:].t() + head.bias
    own = logits.gather(1, targets[:, None] - 2)
    others = (logits[:, drawn] + weights.double().log()).masked_fill(
        drawn == targets[:, None] - 2, -torch.inf
    )
    right = (own - torch.cat([own, others], 1).logsumexp(1, keepdim=True))[:, 0]
    found = head.log_prob(hidden, targets)
    assert torch.allclose(found, right, atol=1e-12)
    inside = (targets[:, None] - 2 == drawn).any(1)
    assert inside.any() and not inside.all()
    for a, b in zip(
        gradients(head, hidden, found, weight), gradients(head, hidden, right, weight), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-12)


def test_a_certain_word_that_was_not_drawn_is_certain(monkeypatch):
    """Beside one whose sum does not fit: both rows are then done again."""
    drawn = torch.arange(9)
    monkeypatch.setattr(module, "draw_words", lambda mass, count: (drawn, torch.ones(9)))
    head = make(False, precision="float32", sampled_words=9)
    hidden = torch.eye(2, head.table.shape[1])
    with torch.no_grad():
        head.table.zero_()
        head.bias.zero_()
        head.table[2, 0], head.table[40, 0], head.table[41, 1] = 80.0, -40.0, 200.0
    found = head.log_prob(hidden, torch.tensor([40, 41]))
    assert torch.allclose(found, torch.tensor([-120.0, 0.0]))


def test_a_frozen_head_costs_no_gradient(monkeypatch):
    head = make(False, precision="float32", gradient_words=9)
    hidden, targets, weight = inputs(torch.float32)

    def slope():
        torch.manual_seed(0)
        return torch.autograd.grad((head.log_prob(hidden, targets) * weight).sum(), hidden)[0]

    whole = slope()
    monkeypatch.delattr(module, "_spread")  # which makes the table's
    with pytest.raises(NameError):
        slope()
    head.requires_grad_(False)
    assert torch.allclose(slope(), whole)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_normaliser_of_all_words_but_one_is_nearly_exact(precision):
    head = make(False, precision=precision, sampled_words=V - 3)
    hidden, targets, weight = inputs(torch.float32)
    right, found = plain(head, hidden, targets), head.log_prob(hidden, targets)
    assert (found - right).abs().max() < 0.1
    exact = gradients(head, hidden, right, weight)
    for a, b in zip(gradients(head, hidden, found, weight), exact, strict=True):
        assert (a - b).norm() < 0.05 * b.norm()


def test_a_sample_as_large_as_the_vocabulary_is_the_exact_head():
    head = make(False, precision="float32", sampled_words=V - 2).double()
    hidden, targets, _ = inputs(torch.float64)
    found = head.log_prob(hidden, targets)
    assert torch.allclose(found, plain(head, hidden, targets), atol=1e-12)


def test_words_are_drawn_by_one_of_two_settings():
    with pytest.raises(UserError, match="gradient_words or it to 0"):
        make(False, gradient_words=5, sampled_words=5)
    with pytest.raises(UserError, match="sampled_words is a number"):
        make(False, sampled_words=-1)


def test_a_certain_word_never_gets_more_than_probability_one():
    head = make(False, precision="bfloat16")
    hidden, targets, _ = inputs(torch.float32)
    with torch.no_grad():
        head.bias[targets[0] - 2] = 40.0
    log_prob = head.log_prob(hidden, targets[:1].expand(M))
    assert (log_prob <= 0).all()
    assert log_prob[0] > -1e-3


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("far", [60.0, 300.0])
def test_an_impossible_word_has_its_value_and_its_gradient(monkeypatch, precision, far, waits):
    """Its logit is so far below the others' that exp(other - own) overflows."""
    monkeypatch.setattr(module, "waits", lambda device: waits)
    head = make(False, precision=precision)
    hidden, targets, _ = inputs(torch.float32)
    targets = targets.clone()
    targets[:3] = 5
    with torch.no_grad():
        head.bias[5 - 2] = -far
    fused, exact = head.log_prob(hidden, targets), plain(head, hidden, targets)
    assert torch.allclose(fused, exact, rtol=2e-3, atol=0.06)
    assert fused[0] < -far + 10
    ours, theirs = (torch.autograd.grad(x.sum(), hidden)[0] for x in (fused, exact))
    assert torch.allclose(ours, theirs, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("tied", [False, True])
def test_writing_and_scoring_agree_on_every_word(tied):
    head = make(tied, precision="float32")
    hidden = torch.randn(4, H)
    every = torch.arange(2, V)
    written = head.logits(hidden).log_softmax(-1)
    for row in range(4):
        scored = head.log_prob(hidden[row].expand(len(every), -1), every)
        assert torch.allclose(written[row, 2:], scored, atol=1e-5)


def test_pad_and_start_carry_no_mass():
    head = make(False)
    logits = head.logits(torch.randn(5, H))
    assert torch.isneginf(logits[:, :2]).all()
    assert logits.shape == (5, V)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied, width", [(False, H), (True, 10)])
@pytest.mark.parametrize("rows", [1, 5, M])
def test_parts_are_the_logits_a_few_rows_at_a_time(precision, tied, width, rows):
    head = make(tied, width, precision=precision)
    with torch.no_grad():
        head.bias += 100  # too large for bf16 to have its digits
    writer, hidden = Writer(head), torch.randn(M, H)
    writer.rows = rows
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    mapped = hidden if head.map is None else head.map(hidden)
    expected = (mapped.to(kind) @ head.table.to(kind).t()).float()
    expected[:, :2] = -torch.inf
    expected[:, 2:] += head.bias
    for _ in range(2):  # the memory of a first round is used again
        some, logits = zip(*((h, found.clone()) for h, found in writer.parts(hidden)), strict=True)
        assert max(map(len, logits)) == rows
        assert torch.equal(torch.cat(some), hidden)
        tight = 1e-4 if precision == "float32" else 0.02
        assert torch.allclose(torch.cat(logits)[:, :V], expected, rtol=0, atol=tight)
        assert torch.allclose(head.logits(hidden), expected, rtol=0, atol=tight)
        assert torch.isneginf(torch.cat(logits)[:, V:]).all()


def test_no_rows_is_no_trouble():
    head = make(True)
    assert head.log_prob(torch.zeros(0, H), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_bag_of_words_equals_the_hand_computed_sum():
    bow = BagOfWords(3, V, hidden=4)
    z = torch.randn(2, 2, 3)
    targets = torch.tensor([[5, 6, 2], [7, 2, 0]])
    found = bow(z, targets, targets != 0)
    log_p = bow.net(z[1, 1]).log_softmax(-1)
    assert found.shape == (2, 2)
    assert torch.allclose(found[1, 1], log_p[7 - 2] + log_p[2 - 2])

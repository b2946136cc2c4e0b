"""An LSTM's gradient is right whatever the processor's library makes of it."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from midsentence.parts import lstm
from midsentence.parts.head import has_bfloat16_layers
from midsentence.parts.lstm import Lstm
from tiny import batch, tiny

torch_lstm = torch.lstm
has_bf16 = pytest.mark.skipif(
    not has_bfloat16_layers(torch.device("cpu")), reason="torch's LSTM has no bf16 here"
)


def gradients(net, x, start, read):
    hidden, h, c = read(net, x, start)
    torch.manual_seed(1)
    value = sum(
        (y.double() * torch.randn(y.shape, dtype=torch.double)).sum() for y in (hidden, h, c)
    )
    return [hidden, h, c, *torch.autograd.grad(value, [x, *start, *net.parameters()])]


def by_torch(net, x, start):
    hidden, (h, c) = net(x, tuple(s[None] for s in start))
    return hidden, h[0], c[0]


def by_ours(kind):
    return lambda net, x, start: Lstm.apply(x, *start, *net.parameters(), kind)


def example(width, hidden, rows, words, dtype):
    torch.manual_seed(0)
    net = nn.LSTM(width, hidden, batch_first=True, dtype=dtype)
    x, *start = (
        torch.randn(size, dtype=dtype, requires_grad=True)
        for size in ((rows, words, width), (rows, hidden), (rows, hidden))
    )
    return net, x, start


def test_value_and_gradients_are_an_lstms():
    net, x, start = example(5, 7, 3, 6, torch.double)
    right = gradients(net, x, start, by_torch)
    for ours, theirs in zip(gradients(net, x, start, by_ours(torch.double)), right, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scale", [1, 0.04])
def test_bf16_products_leave_them_as_near_as_bf16_is(scale):
    """Also where what is read is small, and where the start comes in bf16, as under autocast."""
    net, x, start = example(40, 64, 8, 20, torch.float32)
    x, *start = (scale * v.detach().bfloat16().float() for v in (x, *start))
    x, *start = (v.requires_grad_() for v in (x, *start))
    right = gradients(net, x, start, by_torch)

    def ours(net, x, start):
        return by_ours(torch.bfloat16)(net, x, [s.bfloat16() for s in start])

    for found, exact in zip(gradients(net, x, start, ours), right, strict=True):
        assert (found - exact).norm() < 0.012 * exact.norm()


@pytest.fixture
def afresh():
    lstm._measured_wrong.cache_clear()
    yield
    lstm._measured_wrong.cache_clear()


def blind(x, *others):
    """torch's LSTM, in bf16 without a gradient of what it reads."""
    x = x.detach() + 0 * x if torch.is_autocast_enabled("cpu") else x
    with torch.autocast("cpu", enabled=False):  # not every processor has one in bf16
        return torch_lstm(x, *others)


@pytest.mark.parametrize("reading", [{}, {"bidirectional": True, "layers": 2}])
@pytest.mark.parametrize("writing", [{}, {"layers": 2}, {"weight_drop": 0.5}])
def test_a_wrong_gradient_is_noticed_and_not_taken(writing, reading, afresh, monkeypatch):
    reading = {"pooling": "mean", **reading}  # the largest is another one in bf16 now and then
    vae = tiny(encoder="lstm", decoder="lstm", reading=reading, writing=writing).float()

    def found(bf16):
        torch.manual_seed(2)
        vae.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            summary = vae.encoder(batch())
            z = summary[:, :3].float()
            vae.decoder(batch().inputs, z).float().square().sum().backward()
        return [p.grad.clone() for p in vae.parameters() if p.grad is not None]

    vae.train()
    right = found(False)
    monkeypatch.setattr(torch, "lstm", blind)
    monkeypatch.setattr(nn.LSTM, "forward", _forbidden)
    for ours, theirs in zip(found(True), right, strict=True):
        assert (ours - theirs).norm() <= 0.05 * theirs.norm()


def _forbidden(self, *arguments):
    raise AssertionError("torch's own forward, whose gradient is wrong")


@has_bf16
def test_what_has_no_gradient_or_is_exact_is_torchs(afresh, monkeypatch):
    net, x, _ = example(5, 7, 3, 6, torch.float32)
    monkeypatch.setattr(lstm, "_measured_wrong", lambda *sizes: True)
    monkeypatch.setattr(Lstm, "apply", _forbidden)
    assert torch.equal(lstm.read(net, x), net(x)[0])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lstm.read(net, x), net(x)[0])


@has_bf16
@pytest.mark.parametrize("hidden", [64, 1024])
def test_here_the_gradient_is_right_at_any_size(hidden):
    """At 1,024 units torch's own is not, on processors with AMX."""
    net, x, _ = example(16, hidden, 2, 3, torch.float32)
    right = torch.autograd.grad(net(x)[0].square().sum(), [x, *net.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        value = lstm.read(net, x).float().square().sum()
    for ours, theirs in zip(torch.autograd.grad(value, [x, *net.parameters()]), right, strict=True):
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


@has_bf16
@pytest.mark.parametrize("width", [256, 288])
def test_here_it_is_right_for_a_decoder_that_z_begins(width):
    """256 units that read 256 numbers of a word, with z or without."""
    net, x, start = example(width, 256, 16, 12, torch.float32)

    def read(net, x, start):
        return lstm.one_layer(x, [s[None] for s in start], list(net.parameters()))

    right = gradients(net, x, start, read)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(net, x, start, read)
    for ours, exact in zip(found, right, strict=True):
        assert (ours - exact).norm() < 0.03 * exact.norm()


def test_looking_for_it_takes_no_random_numbers(afresh, monkeypatch):
    monkeypatch.setattr(torch, "lstm", blind)
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    assert lstm._measured_wrong(4, 8)
    assert torch.equal(torch.rand(1), first)


def test_nobody_waits_for_the_compiler_who_does_not_compile():
    look = (
        "import sys, torch, midsentence.cli, midsentence.evaluation, midsentence.pipeline\n"
        "from midsentence.learning.optimizers import OPTIMIZERS, clipped_step\n"
        "for make in OPTIMIZERS.values():\n"
        "    p, q = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))\n"
        "    each = make([('encoder.w', p), ('head.w', q)]).each\n"
        "    (p * q).sum().backward()\n"
        "    clipped_step(each, 1.0)\n"
        "    [o.load_state_dict(o.state_dict()) for o in each]\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", look], check=True)

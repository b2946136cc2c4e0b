"""The laws: every entry of every table is held to them, so a new part is tested by being listed."""

import itertools
import math

import pytest
import torch
from safetensors.torch import save_file

from midsentence import vae as vae_module
from midsentence.assembly import assemble
from midsentence.config import resolve
from midsentence.errors import UserError
from midsentence.learning.objectives import Elbo
from midsentence.learning.optimizers import OPTIMIZERS
from midsentence.learning.schedules import schedule
from midsentence.parts.decoders import DECODERS
from midsentence.parts.injection import WAYS
from midsentence.parts.layers import Pooling, dropout
from midsentence.parts.posteriors import POSTERIORS
from midsentence.parts.priors import PRIORS
from midsentence.text.batches import Batch, collate
from midsentence.text.tokenizer import EOS, PAD, UNK
from midsentence.weights import build, tensors_of
from tiny import PAIRINGS, REAL_ENCODERS, SMALL, VOCAB, batch, language_model, tiny

WAYS_IN = {"lstm": WAYS, "gru": WAYS, "transformer": (*WAYS, "memory")}
INJECTED = [(d, [way]) for d in DECODERS for way in WAYS_IN[d]]
INJECTED += [(d, list(WAYS_IN[d])) for d in DECODERS]


def go_together(posterior, prior):
    return prior == "vamp" or (posterior == "vmf") == (prior == "sphere")


DENSITIES = [pair for pair in itertools.product(POSTERIORS, PRIORS) if go_together(*pair)]
REFUSED = [pair for pair in itertools.product(POSTERIORS, PRIORS) if not go_together(*pair)]
CLOSED = [("gaussian", "normal"), ("full", "normal"), ("lowrank", "normal"), ("vmf", "sphere")]
READERS = [(kind, {"pooling": pooling}) for kind in REAL_ENCODERS for pooling in Pooling.KINDS]
READERS += [
    (kind, {"pooling": pooling, "bidirectional": True, "layers": 2})
    for kind in ("lstm", "gru")
    for pooling in Pooling.KINDS
]


def silent(vae):
    asked = [(n, p) for n, p in vae.named_parameters() if p.requires_grad]
    return [n for n, p in asked if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(("encoder", "decoder"), PAIRINGS)
@pytest.mark.parametrize("tied", [False, True])
def test_gradient_reaches_every_parameter(encoder, decoder, tied):
    vae = tiny(
        encoder,
        decoder,
        writing={"inject": list(WAYS_IN[decoder]), "layers": 2},
        head={"tied": tied},
        objective={"bow": 0.1},
    )
    vae(batch(), 2, Elbo(free_bits=0, bow=0.1))["objective"].sum().backward()
    assert silent(vae) == []


@pytest.mark.parametrize(("posterior", "prior"), DENSITIES)
def test_gradient_reaches_every_parameter_of_every_density(posterior, prior):
    vae = tiny(posterior={"kind": posterior}, prior={"kind": prior})
    vae(batch(), 3, Elbo(free_bits=0))["objective"].sum().backward()
    assert silent(vae) == []


@pytest.mark.parametrize(("posterior", "prior"), REFUSED)
def test_a_pair_that_cannot_be_is_refused_by_name(posterior, prior):
    with pytest.raises(UserError, match=f"'{posterior}' and prior '{prior}' do not go together"):
        tiny(posterior={"kind": posterior}, prior={"kind": prior})


def on_a_grid(log_prob, sphere, steps=301):
    """(points, masses) of a density in two dimensions."""
    if sphere:
        angle = (torch.arange(steps, dtype=torch.float64) + 0.5) * (2 * math.pi / steps)
        points = torch.stack([angle.cos(), angle.sin()], -1)
        return points, log_prob(points).exp() * (2 * math.pi / steps)
    side = torch.linspace(-15, 15, steps, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    return points, log_prob(points).exp() * (side[1] - side[0]) ** 2


@torch.no_grad()
@pytest.mark.parametrize("role", ["posterior", "prior"])
@pytest.mark.parametrize(("posterior", "prior"), DENSITIES)
def test_samples_lie_where_the_density_says_in_two_dimensions(role, posterior, prior):
    if role == "posterior" and prior not in ("normal", "sphere"):
        pytest.skip("the posterior is the same under every prior")
    vae = tiny(latent=2, posterior={"kind": posterior}, prior={"kind": prior})
    law = vae.infer(batch((4,))) if role == "posterior" else vae.prior()
    count = 20_000
    drawn = law.sample((count,)).view(count, 2)
    points, mass = on_a_grid(lambda z: law.log_prob(z[:, None] if law.batch_shape else z).view(-1),
                             vae.posterior.sphere)  # fmt: skip
    assert mass.sum() == pytest.approx(1, abs=0.01)
    # Between two points of the grid: each stands for the cell around it.
    cell = 0 if vae.posterior.sphere else points[1, 1] - points[0, 1]
    middle = drawn.median(0).values
    middle = ((middle - points[0]) / cell).floor().add(0.5) * cell + points[0] if cell else middle
    for inside in (lambda z: z[:, 0] > middle[0], lambda z: z[:, 1] > middle[1],
                   lambda z: (z > middle).all(1)):  # fmt: skip
        share = inside(drawn).double().mean()
        error = (share * (1 - share) / count).sqrt()
        assert abs(mass[inside(points)].sum() - share) < 5 * error + 0.01


@pytest.mark.parametrize(("encoder", "reading"), READERS)
def test_gradient_reaches_every_parameter_of_every_reader(encoder, reading):
    vae = tiny(encoder, reading=reading)
    vae(batch(), 1, Elbo(free_bits=0))["objective"].sum().backward()
    assert silent(vae) == []


@pytest.mark.parametrize(("encoder", "reading"), READERS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_bfloat16_products_keep_values_and_gradients(encoder, reading, decoder):
    exact, fast = (tiny(encoder, decoder, reading=reading).float() for _ in range(2))
    fast.head.precision = "bfloat16"
    z = torch.randn(2, 4, 3)
    held = [vae.log_px(batch(), z) for vae in (exact, fast)]
    assert held[1].dtype == torch.float32
    assert not torch.equal(*held)
    assert torch.allclose(*held, rtol=0.01, atol=0.1)
    for vae, log_px in zip((exact, fast), held, strict=True):
        (log_px.sum() + vae.infer(batch()).mean.sum()).backward()
    for part in ("encoder", "posterior", "decoder", "head"):
        ours, theirs = (
            torch.cat([p.grad.flatten() for p in getattr(vae, part).parameters()])
            for vae in (fast, exact)
        )
        # Under max pooling a tie in bf16 shares its gradient: hence no closer.
        assert (ours - theirs).norm() < 0.2 * theirs.norm(), part


def test_where_an_lstm_has_no_bfloat16_the_head_alone_has(monkeypatch):
    """As on processors without AVX-512, whose oneDNN refuses it."""
    exact, fast = (tiny("lstm", "lstm").float() for _ in range(2))
    fast.head.precision = "bfloat16"
    monkeypatch.setattr(vae_module, "has_bfloat16_layers", lambda device: False)
    z = torch.randn(2, 4, 3)
    means = [vae.infer(batch()).mean for vae in (exact, fast)]
    scores = [vae.log_px(batch(), z) for vae in (exact, fast)]
    assert torch.equal(*means)
    assert not torch.equal(*scores)
    assert torch.allclose(*scores, rtol=0.01, atol=0.1)


@pytest.mark.parametrize(("decoder", "inject"), INJECTED)
def test_z_changes_what_is_written(decoder, inject):
    vae = tiny(decoder=decoder, writing={"inject": inject})
    z = torch.randn(2, 4, 3, dtype=torch.float64)
    first, second = vae.log_px(batch(), z)
    assert (first - second).abs().min() > 1e-6


@pytest.mark.parametrize("decoder", DECODERS)
def test_gate_and_skip_are_a_product_and_a_sum(decoder):
    """FiLM: what leaves is h (1 + G z) + U z, and nothing but h where training begins."""
    inject, z = ["state", "gate", "skip"], torch.randn(4, 3, dtype=torch.float64)
    found = tiny(decoder=decoder, writing={"inject": inject}).decoder
    hidden = found(batch().inputs, z)
    g, u = ((way.weight @ z[:, :, None]).mT for way in (found.gate, found.skip))
    found.gate, found.skip = None, None
    plain = found(batch().inputs, z)
    assert torch.allclose(hidden, plain * (1 + g) + u, atol=1e-12)
    settings = {"kind": decoder, **SMALL[decoder], "inject": inject}
    new = assemble(resolve({"latent": 3, "decoder": settings}), VOCAB)
    assert not new.decoder.gate.weight.any() and new.decoder.skip.weight.all()


@pytest.mark.parametrize(("posterior", "prior"), DENSITIES)
def test_densities_of_a_pass_are_those_asked_afterwards(posterior, prior):
    vae = tiny(posterior={"kind": posterior}, prior={"kind": prior})
    run = vae.run(batch(), 3)
    assert torch.allclose(run.log_qz, vae.infer(batch()).log_prob(run.z), atol=1e-12)
    assert torch.allclose(run.log_pz, vae.prior().log_prob(run.z), atol=1e-12)
    assert torch.allclose(run.log_px, vae.log_px(batch(), run.z), atol=1e-12)
    assert torch.allclose(run.log_w, run.log_px + run.log_pz - run.log_qz)


@pytest.mark.parametrize(("posterior", "prior"), CLOSED)
def test_closed_form_kl_agrees_with_monte_carlo(posterior, prior):
    vae = tiny(posterior={"kind": posterior}, prior={"kind": prior})
    run = vae.run(batch(), 40_000)
    drawn = run.log_qz - run.log_pz
    error = drawn.std(0) / 200
    assert run.kl.shape[1] == (3 if posterior == "gaussian" else 1)
    assert ((run.kl.sum(1) - drawn.mean(0)).abs() < 4.5 * error + 1e-9).all()


@pytest.mark.parametrize(("encoder", "decoder"), PAIRINGS)
def test_padding_changes_nothing(encoder, decoder):
    vae = tiny(encoder, decoder)
    held = batch()
    wider = Batch(torch.nn.functional.pad(held.tokens, (0, 4), value=PAD))
    alone = [collate([held.tokens[i, 1 : held.lengths[i]].numpy()]) for i in range(len(held))]
    z = torch.randn(1, 4, 3, dtype=torch.float64)
    expected = vae.log_px(held, z)
    assert torch.allclose(vae.log_px(wider, z), expected, atol=1e-10)
    assert torch.allclose(vae.infer(wider).mean, vae.infer(held).mean, atol=1e-10)
    for i, one in enumerate(alone):
        assert torch.allclose(vae.log_px(one, z[:, i : i + 1]), expected[:, i : i + 1], atol=1e-10)
        assert torch.allclose(vae.infer(one).mean, vae.infer(held).mean[i : i + 1], atol=1e-10)


@pytest.mark.parametrize(("encoder", "reading"), READERS)
def test_padding_changes_no_summary(encoder, reading):
    vae = tiny(encoder, reading=reading)
    held = batch()
    wider = Batch(torch.nn.functional.pad(held.tokens, (0, 4), value=PAD))
    assert torch.allclose(vae.encoder(wider), vae.encoder(held), atol=1e-10)


@pytest.mark.parametrize(("decoder", "inject"), [*INJECTED, *((d, None) for d in DECODERS)])
def test_stepping_equals_teacher_forcing(decoder, inject):
    vae = tiny(decoder=decoder, writing={"inject": inject}) if inject else language_model(decoder)
    tokens, z = batch().inputs, torch.randn(4, vae.latent, dtype=torch.float64)
    whole = vae.decoder(tokens, z)
    state, steps = vae.decoder.start(z), []
    for place in range(tokens.shape[1]):
        hidden, state = vae.decoder.step(tokens[:, place : place + 1], state)
        steps.append(hidden)
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-10)
    assert all(len(value) == 4 for value in state.values())


@pytest.mark.parametrize(("decoder", "softmaxes"), [*((d, 1) for d in DECODERS), ("lstm", 3)])
@torch.no_grad()
def test_probabilities_of_all_sentences_and_the_open_mass_sum_to_one(decoder, softmaxes):
    """A vocabulary of <unk> and two words: all sentences up to 4 words, then what is still open."""
    vae = tiny(decoder=decoder, vocab=UNK + 3, head={"softmaxes": softmaxes})
    z = torch.randn(1, 1, 3, dtype=torch.float64)
    words = [UNK, UNK + 1, UNK + 2]
    total = 0.0
    for length in range(5):
        sentences = [list(s) for s in itertools.product(words, repeat=length)]
        held = collate(sentences)
        log_px = vae.log_px(held, z.expand(1, len(sentences), 3))
        total += float(log_px.exp().sum())
        if length == 4:
            hidden = vae.decoder(held.inputs, z[0].expand(len(sentences), 3))
            log_p = vae.head.logits(hidden).log_softmax(-1)
            ends = log_p[:, -1, EOS].exp()
            # P(prefix) = P(sentence) / P(</s>), and the open mass is P(prefix) (1 - P(</s>)).
            total += float((log_px[0].exp() / ends * (1 - ends)).sum())
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_language_model_is_the_same_story_without_a_latent(decoder):
    vae = language_model(decoder)
    run = vae.run(batch(), 3)
    assert run.z.shape == (3, 4, 0)
    assert run.kl.shape == (4, 0)
    assert torch.equal(run.log_w, run.log_px)
    assert torch.equal(run.log_px[0], run.log_px[2])
    vae(batch(), 1, Elbo(free_bits=0))["objective"].sum().backward()
    assert silent(vae) == []


WRONG = [
    ({"posterior": {"kind": "lowrank", "rank": -3}}, "posterior.rank must be at least 1"),
    ({"decoder": "transformer", "writing": {"memory": 0}}, "decoder.memory must be at least 1"),
    ({"decoder": "transformer", "writing": {"memory": -1}}, "decoder.memory must be at least 1"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_parts_of_no_size_are_refused_by_name(settings, said):
    with pytest.raises(UserError, match=said):
        tiny(**settings)


def test_building_what_a_file_holds_leaves_the_random_state_alone(tmp_path):
    made = PRIORS["mog"](3, torch.nn.Identity())
    save_file(tensors_of(made), tmp_path / "prior.safetensors")
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    built = build(lambda: PRIORS["mog"](3, torch.nn.Identity()), {}, tmp_path / "prior.safetensors")
    assert torch.rand(1) == expected
    assert torch.equal(built.means, made.means)


def test_a_memory_that_is_not_asked_for_may_be_of_any_size():
    tiny(decoder="transformer", writing={"memory": 0, "inject": ["add"]})
    language_model("transformer", writing={"memory": 0})


RATES = [
    (kind, name, value)
    for kind, names in (("adamw", ["lr"]), ("sgd", ["lr"]), ("mixed", ["lr", "sgd_lr"]))
    for name in names
    for value in (0.0, -1.0, math.nan, math.inf)
]
RATES += [(kind, "beta2", value) for kind in ("adamw", "mixed") for value in (-0.1, 1.0, math.nan)]


@pytest.mark.parametrize(("kind", "name", "value"), RATES)
def test_a_rate_that_learns_nothing_is_refused_by_name(kind, name, value):
    parameters = [("encoder.a", torch.nn.Parameter(torch.zeros(2)))]
    parameters.append(("decoder.b", torch.nn.Parameter(torch.zeros(2))))
    with pytest.raises(UserError, match=rf"^optimizer\.{name} = .*: it must be"):
        OPTIMIZERS[kind](parameters, **{name: value})


def test_schedules_at_the_edge_of_their_settings():
    steep = schedule("logistic", steepness=5000.0)
    assert [steep(p) for p in (0.0, 0.1, 0.2, 1.0)] == pytest.approx([0, 0, 1, 1])
    falling = schedule("logistic", steepness=-5000.0)
    assert [falling(p) for p in (0.0, 1.0)] == pytest.approx([1, 0])
    for cycles in (0, -2):
        with pytest.raises(UserError, match=r"beta\.cycles must be at least 1"):
            schedule("cyclical", cycles=cycles)


DROPOUTS = [(d, {"dropout": 0.5, "word_dropout": 0.5}) for d in DECODERS]
DROPOUTS += [(d, {"embedding_dropout": 0.5}) for d in DECODERS]
DROPOUTS += [("lstm", {"weight_drop": 0.5}), ("gru", {"weight_drop": 0.5, "layers": 2})]


@pytest.mark.parametrize(("decoder", "writing"), DROPOUTS)
def test_dropouts_act_in_training_only(decoder, writing):
    vae = tiny(decoder=decoder, writing=writing)
    z = torch.randn(1, 4, 3, dtype=torch.float64)
    assert torch.equal(vae.log_px(batch(), z), vae.log_px(batch(), z))
    vae.train()
    assert not torch.equal(vae.log_px(batch(), z), vae.log_px(batch(), z))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(401, 501), (7,), ()])
def test_dropout_drops_evenly_and_grows_the_rest_by_as_much(p, shape):
    """Its noise comes four to a draw: each alone, and neighbours together, must be as they say."""
    torch.manual_seed(0)
    x = torch.full(shape, 3.0, dtype=torch.float64, requires_grad=True)
    found = dropout(x, p)
    found.sum().backward()
    p = round(p * 2**16) / 2**16
    kept = found != 0
    torch.testing.assert_close(found[kept], x[kept] / (1 - p))
    torch.testing.assert_close(x.grad, kept.double() / (1 - p))
    if len(shape) < 2:
        return
    kept = kept.double().flatten()
    for lag in 1, 2, 3, 4, shape[-1]:
        for part in range(4):  # of the draw
            one, other = kept[part:-lag:4], kept[part + lag :: 4]
            error = 5 * (p * (1 - p) / len(one)) ** 0.5
            assert abs(one.mean() - (1 - p)) < error
            assert abs((one * other).mean() - (1 - p) ** 2) < error


@pytest.mark.parametrize("decoder", DECODERS)
def test_embedding_dropout_is_the_table_without_some_words(decoder):
    vae = tiny(decoder=decoder, writing={"embedding_dropout": 0.5}).train()
    z = torch.randn(1, 4, 3, dtype=torch.float64)
    torch.manual_seed(1)
    dropped = vae.log_px(batch(), z)
    torch.manual_seed(1)
    table = vae.decoder.input.embedding
    kept = dropout(torch.ones(len(table.weight), 1, dtype=z.dtype), 0.5)
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    table.weight.data *= kept
    vae.eval()
    torch.testing.assert_close(vae.log_px(batch(), z), dropped)


@pytest.mark.parametrize("decoder", ["lstm", "gru"])
def test_a_locked_dropout_is_one_for_all_words_between_layers_too(decoder):
    vae = tiny(decoder=decoder, writing={"layers": 2, "dropout": 0.5, "locked_dropout": True})
    decoder, z = vae.decoder.train(), torch.randn(4, 3, dtype=torch.float64)
    tokens, net, start = torch.randint(2, 9, (4, 6)), decoder.net, decoder.start(z)
    alone = [
        type(net)(size, decoder.width, batch_first=True).double()
        for size in (decoder.input.width, decoder.width)
    ]
    for layer, one in enumerate(alone):
        for name, weight in one.named_parameters():
            weight.data = net.get_parameter(name[:-1] + str(layer)).data
    torch.manual_seed(1)
    hidden, state = decoder.step(tokens, start)
    torch.manual_seed(1)
    x = decoder.input(tokens, z)
    for layer, one in enumerate(alone):
        begun = [start[name][None, :, layer] for name in ("h", "c") if name in start]
        x, _ = one(x, tuple(begun) if len(begun) > 1 else begun[0])
        torch.testing.assert_close(state["h"][:, layer], x[:, -1])
        x = x * dropout(torch.ones(4, 1, decoder.width, dtype=torch.float64), 0.5)
    torch.testing.assert_close(hidden, x)


@pytest.mark.parametrize("decoder", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_weight_drop_is_the_net_with_fewer_recurrent_weights(decoder, layers):
    vae = tiny(decoder=decoder, writing={"weight_drop": 0.5, "layers": layers}).train()
    z = torch.randn(1, 4, 3, dtype=torch.float64)
    torch.manual_seed(1)
    dropped = vae.log_px(batch(), z)
    dropped.sum().backward()
    torch.manual_seed(1)
    for name, weight in vae.decoder.net.named_parameters():
        if "weight_hh" in name:
            kept = dropout(weight.detach(), 0.5)
            assert torch.equal(weight.grad == 0, kept == 0)
            weight.data = kept
    vae.eval()
    torch.testing.assert_close(vae.log_px(batch(), z), dropped)

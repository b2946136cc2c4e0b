"""The latent toolkit: exact cases by hand, then the commands on a tiny run."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from midsentence import (
    Score,
    TextVAE,
    UserError,
    cloud,
    directions,
    evaluation,
    fitted,
    kept,
    latent,
)
from midsentence.cloud import Cloud
from midsentence.latent import Aggregate
from midsentence.measuring.survey import InMemory, posterior_means
from midsentence.opening import digest
from midsentence.space import FAR, Space
from test_cli import LINES, SMALL, call
from tiny import language_model, lines, tiny


def cloud_of(mean, spread=0.3, *, sphere=False, label=None, names=()):
    """Sentences called by their numbers, at these places."""
    variance = torch.full_like(mean, spread**2)
    chance = torch.Generator().manual_seed(5)
    draw = mean + spread * torch.randn(mean.shape, generator=chance)
    return Cloud(
        mean, variance, latent.unit(draw) if sphere else draw,
        text=lambda rows: [str(r) for r in rows], label=label, names=names, sphere=sphere,
    )  # fmt: skip


def gaussian(count, loc=(0.0, 0.0), scale=1.0, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.tensor(loc) + scale * torch.randn(count, len(loc), generator=chance)


class Echo(TextVAE):
    """A model that writes z down."""

    def __init__(self):
        pass

    def decode(self, z, *, label=None, seed=0, **decoding):
        assert not decoding  # greedily, by `TextVAE.decode`
        return [" ".join(f"{v:.3f}" for v in row) for row in z.tolist()]


def plane(mean=None, held=None, **more):
    mean = gaussian(500) if mean is None else mean
    held = gaussian(400, seed=1) if held is None else held
    return Space(cloud_of(mean, **more), cloud_of(held), Echo())


def numbers(written):
    return torch.tensor([float(v) for v in written.text.split()])


# Densities and paths.


def test_the_aggregate_is_the_mean_of_the_posteriors():
    mean, variance = gaussian(30, (1.0, -2.0, 0.0)), torch.rand(30, 3) + 0.1
    z = gaussian(7, (0.0, 0.0, 1.0), seed=2)
    each = torch.distributions.Normal(mean.double(), variance.double().sqrt())
    exact = each.log_prob(z.double()[:, None]).sum(-1).exp().mean(1).log()
    assert torch.allclose(Aggregate(mean, variance).log_density(z), exact, atol=1e-8)


def test_a_mean_shift_never_lowers_the_density():
    q = Aggregate(gaussian(40, scale=2.0), torch.rand(40, 2) + 0.05)
    z = gaussian(100, scale=3.0, seed=4)
    before, after = q.log_density(z), q.log_density(q.shifted(z))
    assert (after >= before - 1e-6).all()
    assert (after > before + 0.1).any()
    alone = Aggregate(torch.tensor([[1.0, 2.0]]), torch.ones(1, 2))
    assert torch.allclose(alone.shifted(z), torch.tensor([1.0, 2.0]).expand(100, 2))


def bridge():
    """Two modes, and sentences between them only along the upper half of a circle."""
    angle = torch.linspace(0, math.pi, 60)
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_a_mean_shift_is_the_same_in_parts(monkeypatch):
    torch.manual_seed(0)
    q, z = Aggregate(torch.randn(9, 3), torch.rand(9, 3) + 0.1), torch.randn(20, 3)
    whole = q.shifted(z)
    monkeypatch.setattr(latent, "ROOM", 30)
    assert torch.allclose(whole, q.shifted(z))


def test_a_path_along_the_density_goes_round_a_hole():
    q = Aggregate(bridge(), torch.full((60, 2), 0.1**2))
    a, b = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0])
    straight, way = latent.linear(a, b, 9), latent.along_density(q, a, b, 9)
    assert q.log_density(way).min() > q.log_density(straight).min() + 10
    assert ((way.norm(dim=1) - 1).abs() < 0.15).all()
    assert torch.allclose(way[0], a)
    assert torch.allclose(way[-1], b)
    steps = (way[1:] - way[:-1]).norm(dim=1)
    assert steps.max() < 1.1 * steps.min()


def test_a_path_along_the_density_is_straight_where_nothing_is_in_the_way():
    q = Aggregate(torch.zeros(1, 2), torch.ones(1, 2))
    a, b = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0])
    assert torch.allclose(latent.along_density(q, a, b, 5), latent.linear(a, b, 5), atol=0.02)
    assert torch.equal(latent.along_density(q, a, a, 5), a.expand(5, 2))


def test_a_path_on_the_sphere_stays_there():
    points = latent.unit(gaussian(50, (0.0, 0.0, 1.0)))
    q = Aggregate(points, torch.full_like(points, 0.05))
    way = latent.along_density(q, points[0], points[1], 6, sphere=True)
    assert torch.allclose(way.norm(dim=1), torch.ones(6), atol=1e-5)


def test_spaced_points_are_evenly_far_apart():
    corner = torch.tensor([[0.0, 0.0], [0.0, 3.0], [1.0, 3.0]])
    expected = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [1.0, 3.0]])
    assert torch.allclose(latent.spaced(corner, 5), expected)


# Neighbours and clusters.


def test_neighbours_are_those_of_brute_force(monkeypatch):
    points, z = gaussian(200), gaussian(20, seed=3)
    exact = ((z[:, None] - points) ** 2).sum(-1).sqrt().sort(1)
    monkeypatch.setattr(latent, "ROOM", 200 * 3)  # several parts
    distance, row = latent.nearest(z, points, 6)
    assert torch.equal(row, exact.indices[:, :6])
    assert torch.allclose(distance, exact.values[:, :6])
    label = torch.arange(200) % 3 - 1
    space = Space(cloud_of(points, label=label, names=["x", "y"]), cloud_of(z))
    found = space.neighbours(z[0], 3)
    assert [n.text for n in found] == [str(r) for r in row[0, :3].tolist()]
    assert [n.label for n in found] == [[None, "x", "y"][r % 3] for r in row[0, :3].tolist()]
    assert len(space.neighbours(z[0], 1000)) == 200


def test_copies_of_a_sentence_do_not_push_others_out():
    """Nine of ten are the same; with labels, a sentence is one under each."""
    points = gaussian(400)
    points[:360] = torch.tensor([0.1, 0.1])
    label = torch.tensor([0, 1] * 200)
    cloud = cloud_of(points, label=label, names=["good", "bad"])
    cloud = replace(cloud, text=lambda rows: ["same" if r < 360 else str(r) for r in rows])
    space = Space(cloud, cloud)
    found = space.neighbours(torch.tensor([0.1, 0.1]), 12)
    assert [(n.text, n.label) for n in found[:2]] in (
        [("same", "good"), ("same", "bad")], [("same", "bad"), ("same", "good")]
    )  # fmt: skip
    far = (points[360:] - 0.1).norm(dim=1).sort()
    assert [n.text for n in found[2:]] == [str(360 + i) for i in far.indices[:10].tolist()]
    assert [n.distance for n in found[2:]] == pytest.approx(far.values[:10].tolist())
    assert len(space.neighbours(torch.zeros(2), 1000)) == 42
    unlabelled = Space(replace(cloud, label=None), cloud, Echo())
    (only,) = unlabelled.cluster(1, examples=5)
    assert len(set(only.examples)) == 5 and only.size == 400


def test_clusters_that_are_apart_are_found():
    centres = torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.0, 9.0]])
    truth = torch.arange(90) % 3
    points = centres[truth] + gaussian(90, scale=0.5)
    found, label = latent.kmeans(points, 3, seed=1)
    for group in range(3):
        own = label[truth == group]
        assert (own == own[0]).all()
        assert torch.allclose(found[own[0]], points[truth == group].mean(0), atol=1e-5)
    assert len(label.unique()) == 3
    points = torch.cat([points, centres[:1].repeat(10, 1)])
    clusters = plane(points).cluster(3, examples=2)
    assert [c.size for c in clusters] == [40, 30, 30]
    distance = (points - torch.cat([points[:90:3], points[90:]]).mean(0)).norm(dim=1)
    assert clusters[0].examples[0] == str(int(distance.argmin()))
    with pytest.raises(UserError, match="1 to 90 clusters"):
        latent.kmeans(points[:90], 91)


def test_spherical_clusters_have_their_centres_on_the_sphere():
    found, _ = latent.kmeans(latent.unit(gaussian(60, (0.0, 0.0, 0.0))), 4, sphere=True)
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)


# Far from the data.


def test_points_outside_and_in_holes_are_far_and_others_are_not():
    ring = torch.nn.functional.normalize(gaussian(800), dim=1) * 5
    held = torch.nn.functional.normalize(gaussian(400, seed=1), dim=1) * 5
    space = plane(ring, held)
    points = torch.tensor([[5.0, 0.0], [0.0, -5.0], [0.0, 0.0], [9.0, 0.0]])
    assert space.far(points) == [False, False, True, True]
    assert space.beyond(points)[2:].tolist() == [1.0, 1.0]
    assert "100.0 % of the 400 held-out" in space.warning(1.0)


def test_the_share_beyond_is_uniform_on_sentences_like_the_held_out():
    space = plane(gaussian(2000), gaussian(2000, seed=1))
    shares = space.beyond(gaussian(2000, seed=2)).sort().values
    assert (shares - torch.linspace(0, 1, 2000)).abs().max() < 0.06
    drawn = gaussian(2000, seed=3) + 0.3 * gaussian(2000, seed=4)
    shares = space.beyond(drawn, drawn=True).sort().values
    assert (shares - torch.linspace(0, 1, 2000)).abs().max() < 0.06


# Moves.


def test_analogy_edit_and_interpolation_are_the_arithmetic_they_say():
    space = plane()
    a, b, c = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = space.analogy(a, b, c)
    assert torch.allclose(numbers(found), torch.tensor([1.0, 1.0]))
    assert not found.far
    along = directions.Direction(torch.tensor([0.0, 20.0]), torch.ones(2), 0.0)
    assert torch.allclose(numbers(space.edit(a, along, 0.5)), torch.tensor([0.0, 10.0]))
    assert space.edit(a, along, 0.5).far
    way = space.interpolate(a, b, 3, path="linear")
    assert [w.t for w in way] == [0.0, 0.5, 1.0]
    assert torch.allclose(numbers(way[1]), torch.tensor([0.5, 0.0]))
    with pytest.raises(UserError, match="linear, spherical, density"):
        space.interpolate(a, b, path="curved")
    with pytest.raises(UserError, match="at least 2"):
        space.interpolate(a, b, 1)


def test_moves_on_the_sphere_end_on_it():
    points = latent.unit(gaussian(100, (0.0, 0.0, 2.0)))
    space = Space(cloud_of(points, sphere=True), cloud_of(points, sphere=True), Echo())
    along = directions.Direction(torch.tensor([3.0, 0.0, 0.0]), torch.ones(3), 0.0)
    found = [space.analogy(*points[:3]), space.edit(points[0], along),
             space.toward(points[0], [(along, True)]), space.traverse(points[0], 1)]  # fmt: skip
    *single, traversed = found
    for written in [*single, *next(iter(traversed.values()))]:
        assert written.z.norm() == pytest.approx(1, abs=1e-5)


def test_traverse_moves_the_most_active_dimension_and_no_other():
    mean = gaussian(500, (0.0, 1.0, 0.0)) * torch.tensor([0.1, 4.0, 1.0])
    space = Space(cloud_of(mean), cloud_of(mean), Echo())
    assert space.active(2).tolist() == [1, 2]
    found = space.traverse(torch.tensor([0.5, 0.5, 0.5]), 1, 3, 2.0)
    assert list(found) == [1]
    rows = torch.stack([w.z for w in found[1]])
    assert (rows[:, [0, 2]] == 0.5).all()
    loc, scale = mean[:, 1].mean(), mean[:, 1].std(correction=0)
    assert torch.allclose(rows[:, 1], loc + scale * torch.tensor([-2.0, 0.0, 2.0]), atol=1e-4)


# Directions.


@pytest.mark.parametrize("method", ["mean", "probe"])
def test_the_direction_between_two_gaussians(method):
    a, b = gaussian(4000, (-1.0, 0.5)), gaussian(4000, (2.0, 0.5), seed=1)
    found = plane().direction(a, b, method)
    assert torch.allclose(found.vector, torch.tensor([3.0, 0.0]), atol=0.3)
    # Bayes: log-odds 3 (x - 0.5) and accuracy Phi(1.5).
    assert torch.allclose(found.weight, torch.tensor([3.0, 0.0]), atol=0.4)
    assert found.bias == pytest.approx(-1.5, abs=0.3)
    assert found.about["accuracy"] == pytest.approx(0.9332, abs=0.015)
    assert (found.about["from"], found.about["to"]) == (4000, 4000)


def test_the_probe_sees_what_the_difference_of_means_mistakes():
    """Where the dimensions lean on each other, the normal of the border is another vector."""
    lean = torch.tensor([[1.0, 0.0], [0.95, 0.3]])
    a, b = (gaussian(3000, seed=s) @ lean.T + torch.tensor(shift)
            for s, shift in ((0, (0.0, 0.0)), (1, (1.0, 0.0))))  # fmt: skip
    by_mean, by_probe = (directions.fit(a, b, method) for method in ("mean", "probe"))
    assert by_probe.about["accuracy"] > by_mean.about["accuracy"] + 0.1


def test_what_a_coin_might_do_is_no_direction():
    """Alike on both sides, it stays under the mark 39 times of 40; this far apart it is above."""
    assert directions.guessed({"from": 500, "to": 500}) == pytest.approx(0.5 + 2 * 0.05 / 2**0.5)
    assert math.isnan(directions.guessed({"from": 4, "to": 500}))
    about = [directions.fit(gaussian(100, seed=2 * s), gaussian(100, seed=2 * s + 1), "mean").about
             for s in range(40)]  # fmt: skip
    under = sum(a["accuracy"] <= directions.guessed(a) for a in about)
    assert under >= 35
    apart = directions.fit(gaussian(100), gaussian(100, (1.0, 1.0), seed=1), "mean").about
    assert apart["accuracy"] > directions.guessed(apart)


def test_too_few_sentences_make_no_direction():
    with pytest.raises(UserError, match="at least two"):
        directions.fit(gaussian(1), gaussian(5))
    with pytest.raises(UserError, match="not one of mean, probe"):
        directions.fit(gaussian(3), gaussian(5), "tree")
    assert math.isnan(directions.fit(gaussian(3), gaussian(5, seed=1)).about["accuracy"])


def test_labels_choose_sentences():
    points, label = gaussian(9), torch.tensor([0, 1, -1] * 3)
    space = Space(cloud_of(points, label=label, names=["good", "bad"]), cloud_of(points))
    assert torch.equal(space.labelled("bad"), points[1::3])
    with pytest.raises(UserError, match="There are: good, bad"):
        space.labelled("ugly")
    with pytest.raises(UserError, match="without --label-field"):
        plane().labelled("good")


def test_a_sentence_that_is_there_many_times_counts_once():
    """Held out, it would be told apart by having been seen."""
    points, label = gaussian(40), torch.tensor([0, 1] * 20)
    cloud = cloud_of(points, label=label, names=["good", "bad"])
    often = replace(cloud, text=lambda rows: [str(r // 8) for r in rows])
    space = Space(often, cloud)
    assert torch.equal(space.labelled("bad"), points[1::8])
    asked = []

    class Reader(Echo):
        def encode(self, lines, *, label=None):
            asked.append(lines)
            return gaussian(len(lines), seed=len(asked))

    space = Space(cloud, cloud, Reader())
    found = space.direction(["a", "b", "a"], ["c", "d", "c", "c", "e"])
    assert asked == [["a", "b"], ["c", "d", "e"]]
    assert (found.about["from"], found.about["to"]) == (2, 3)
    with pytest.raises(UserError, match="at least two different"):
        space.direction(["a", "a"], ["b", "c"])


def test_a_direction_between_labels_is_not_read_off_the_labels():
    """Where the model reads sentences by their labels, these would be found in z again."""
    points, label = gaussian(8), torch.tensor([0, 1] * 4)
    cloud = cloud_of(points, label=label, names=["good", "bad"])
    read = {}

    class Reader(Echo):
        labels = ("good", "bad")

        def encode(self, lines, *, label=None):
            read[label] = lines
            return gaussian(len(lines), seed=9)

    found = Space(cloud, cloud, Reader()).labelled("bad")
    assert {k: sorted(v) for k, v in read.items()} == {None: ["1", "3", "5", "7"]}
    assert torch.equal(found, gaussian(4, seed=9))


@pytest.mark.parametrize("method", ["gradient", "ode"])
def test_one_training_sentence_is_a_space(method):
    space = plane(gaussian(1))
    way = directions.Direction(torch.ones(2), torch.ones(2), 0.0)
    space._model.encode = lambda lines, *, label=None: gaussian(len(lines))
    assert "nan" not in space.toward("a", [(way, True)], method=method).text


@pytest.mark.parametrize("method", ["gradient", "ode"])
def test_toward_moves_every_classification(method):
    first = directions.Direction(torch.eye(2)[0], torch.tensor([4.0, 0.0]), 0.0)
    second = directions.Direction(torch.eye(2)[1], torch.tensor([1.0, 4.0]), 1.0)
    begin, space = torch.tensor([-1.0, 1.0]), plane()
    found = numbers(space.toward(begin, [(first, True), (second, False)], method=method))[None]
    assert float(first.log_odds(begin[None])) < -3 < 3 < float(second.log_odds(begin[None]))
    assert float(first.log_odds(found)) > 1
    assert float(second.log_odds(found)) < -1


def test_toward_by_gradient_is_the_optimum_it_says():
    """One classifier in one dimension: s w (1 - sigmoid(s (w u + b))) = near (u - u_0)."""
    one = directions.Direction(torch.ones(1), torch.tensor([2.0]), 0.3)
    scale = torch.tensor([1.7])
    found = directions.toward(torch.tensor([-1.0]), [(one, True)], scale, near=0.5)
    u, start, w = float(found) / 1.7, -1.0 / 1.7, 2.0 * 1.7
    assert w / (1 + math.exp(w * u + 0.3)) == pytest.approx(0.5 * (u - start), abs=1e-3)
    with pytest.raises(UserError, match="gradient, ode"):
        directions.toward(torch.zeros(1), [(one, True)], scale, method="hope")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_directions_are_saved_by_name(folder):
    found = directions.fit(gaussian(40), gaussian(30, (3.0, 0.0), seed=1))
    directions.write(folder, "mood", found)
    again = directions.read(folder, "mood")
    assert torch.equal(again.vector, found.vector)
    assert torch.equal(again.weight, found.weight)
    assert (again.bias, again.about) == (found.bias, found.about)
    assert directions.names(folder) == ["mood"]
    held = {p.suffix for p in (folder / "directions" / "mood").iterdir()}
    assert held == {".toml", ".safetensors", ".json"}
    with pytest.raises(UserError, match="add --force"):
        directions.write(folder, "mood", found)
    other = directions.Direction(-found.vector, found.weight, 0.0)
    directions.write(folder, "mood", other, replace=True)
    assert torch.equal(directions.read(folder, "mood").vector, -found.vector)
    with pytest.raises(UserError, match="There are: mood"):
        directions.read(folder, "food")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-x", ".hidden", "x" * 65])
def test_a_direction_has_a_plain_word_for_a_name(folder, name):
    with pytest.raises(UserError, match="no name for a direction"):
        directions.write(folder, name, directions.Direction(torch.ones(2), torch.ones(2), 0.0))
    with pytest.raises(UserError, match="no name for a direction"):
        directions.read(folder, name)


def test_a_damaged_or_stale_direction_is_refused(folder):
    directions.write(folder, "mood", directions.Direction(torch.ones(2), torch.ones(2), 0.0))
    held = folder / "directions" / "mood" / "tensors.safetensors"
    whole = held.read_bytes()
    held.write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match=r"tensors\.safetensors is damaged"):
        directions.read(folder, "mood")
    held.write_bytes(whole)
    directions.read(folder, "mood")
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match="other weights"):
        directions.read(folder, "mood")


# Real models.


def test_located_means_variances_and_draws_are_the_posteriors():
    vae, held = tiny(), lines(30)
    found = cloud.located(vae, held, seed=2)
    assert torch.allclose(found["mean"], posterior_means(vae, held))
    one = InMemory([held[7].tolist()])
    again = cloud.located(vae, one)
    assert torch.allclose(again["variance"][0], found["variance"][7])
    away = (found["draw"] - found["mean"]) / found["variance"].sqrt()
    assert away.square().mean() == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("posterior", ["full", "iaf", "planar"])
def test_a_posterior_of_any_kind_has_a_spread(posterior):
    vae, held = tiny(posterior={"kind": posterior}), lines(5)
    found = cloud.located(vae, held)
    assert (found["variance"] > 0).all()
    assert found["variance"].shape == found["mean"].shape == (5, 3)


def test_on_the_sphere_means_have_length_one():
    vae = tiny(posterior={"kind": "vmf"}, prior={"kind": "sphere"})
    found = cloud.located(vae, lines(6))
    assert torch.allclose(found["mean"].norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(found["variance"], torch.full_like(found["mean"], 1 / 5))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus that has labels, and a run made of it."""
    folder = tmp_path_factory.mktemp("home")
    rows = [f"{'first' if line[0] in 'abc' else 'last'}\t{line}" for line in LINES]
    (folder / "text.tsv").write_text("\n".join(rows) + "\n")
    (folder / "a.txt").write_text("\n".join(x for x in LINES if "book" in x) + "\n")
    (folder / "b.txt").write_text("\n".join(x for x in LINES if "sea" in x) + "\n")
    asked = "--text-field 1 --label-field 0 --set labels.condition=false"
    done = call(f"train text.tsv --out run --max-steps 60 {asked} {SMALL}", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def said(home, command, stdin=""):
    done = call(command, stdin, cwd=home)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


A, B = '"anna sees a book"', '"ben likes the sea"'


@pytest.mark.parametrize(
    ("command", "count"),
    [
        (f'analogy run {A} {B} "carla paints bread"', 1),
        (f"vary run {A} -n 5 --radius 0.5", 5),
        (f"traverse run {A} -n 2 --steps 3", 6),
        (f"interpolate run {A} {B} --path density --steps 4", 4),
        ("denoise run a.txt --strength 0.3", 24),
        ("cluster run -k 3 --examples 2", 3),
        ("cluster run a.txt -k 2", 2),
        (f"neighbours run {A} -n 4", 4),
        ("outliers run a.txt --samples 3 -n 6", 6),
        ("outliers run - --samples 3 --by distance", 1),
    ],
)
def test_every_command_speaks_text_and_json(home, command, count):
    stdin = "anna sees a book\n" if " - " in command else ""
    assert len(said(home, command, stdin)) >= count
    rows = [json.loads(row) for row in said(home, f"{command} --jsonl", stdin)]
    assert len(rows) == count
    for row in rows:
        assert 0 <= row["beyond"] <= 1
        assert row["far"] == (row["beyond"] > FAR)


def test_vary_repeats_by_seed_and_radius_zero_is_the_reconstruction(home):
    once = said(home, f"vary run {A} --seed 3 --radius 3")
    assert once == said(home, f"vary run {A} --seed 3 --radius 3")
    back = said(home, "reconstruct run -", "anna sees a book\n")
    assert said(home, f"vary run {A} -n 2 --radius 0") == back * 2
    assert said(home, "denoise run - --strength 0", "anna sees a book\n") == back


def test_a_sentence_is_read_as_a_line_of_a_file_is(home):
    model = TextVAE.from_pretrained(home / "run")
    plain, pasted = model.score(["anna sees a book", " anna\tsees a book\n"], 3)
    assert torch.equal(*model.encode([plain.text, pasted.text]).split(1))
    assert (plain.bytes, plain.tokens) == (pasted.bytes, pasted.tokens)


def test_a_file_of_equal_lines_is_not_the_same_again_every_256(home):
    lines = "anna sees a book\n" * 300
    written = said(home, "reconstruct run - --temperature 5", lines)
    assert written[:44] != written[256:]
    assert written == said(home, "reconstruct run - --temperature 5", lines)
    scores = said(home, "score run - --samples 2", lines)[1:]
    assert scores[:64] != scores[64:128]


def test_strangeness_needs_a_likelihood(home, monkeypatch):
    space = Space.open(home / "run")
    nowhere = [Score("a", math.nan, math.nan, math.nan, 1, 1)] * 2
    monkeypatch.setattr(space.model, "score", lambda *given, **more: nowhere)
    with pytest.raises(UserError, match="--own-prior, or --by distance"):
        space.outliers(["anna", "ben"])
    assert len(space.outliers(["anna", "ben"], by="distance")) == 2


def test_a_training_sentence_is_its_own_neighbour(home):
    data = cloud.Corpus.open(home / "run" / "corpus")
    line = data.train.text(data.tokenizer, [4])[0]
    first = json.loads(said(home, f'neighbours run "{line}" -n 1 --jsonl')[0])
    assert first["text"] == line
    assert first["distance"] == pytest.approx(0, abs=1e-4)
    assert first["label"] in ("first", "last")


def test_directions_from_files_and_labels_are_used_by_edit(home):
    shutil.rmtree(home / "run" / "directions", ignore_errors=True)
    found = json.loads(said(home, "direction run scene --from a.txt --to b.txt --json")[0])
    assert (found["from"], found["to"], found["name"]) == (24, 24, "scene")
    assert said(home, "direction run who --from-label first --to-label last --method mean")
    back = said(home, "reconstruct run -", "anna sees a book\n")
    assert said(home, f"edit run {A} --direction scene --strength 0") == back
    away = call(f"edit run {A} --direction scene --strength 1000 --jsonl", cwd=home)
    assert json.loads(away.stdout)["far"]
    assert b"farther from the training sentences than 100.0 %" in away.stderr
    for method in ("gradient", "ode"):
        assert said(home, f"edit run {A} --toward scene --away who --method {method}")
    assert said(home, "direction run who --from a.txt --to b.txt --force")


def test_a_direction_that_a_coin_might_find_says_so(home):
    told = call("direction run none --from a.txt --to a.txt", cwd=home)
    assert b"does not tell the two apart" in told.stderr and told.stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("direction run twice --from a.txt --to b.txt", "add --force"),
        ("direction run a/b --from a.txt --to b.txt", "no name for a direction"),
        ("direction run x --from a.txt", "--to FILE or --to-label NAME"),
        ("direction run x --from-label none --to-label last", "There are: first, last"),
        (f"edit run {A}", "say where to"),
        (f"edit run {A} --direction nowhere", "no direction 'nowhere'"),
        (f"edit run {A} --toward twice --method hope", "gradient, ode"),
        (f"edit run {A} --toward twice --strength 3", "--strength is for --direction"),
        (f"edit run {A} --direction twice --method ode", "are for --toward"),
        (f"edit run {A} --direction twice --near 2", "are for --toward"),
        (f"edit run {A} --toward twice --method ode --near 2", "for --method gradient"),
        ("outliers run a.txt --by luck", "not one of nll, distance"),
        ("cluster run a.txt -k 25", "1 to 24 clusters"),
        ('neighbours run ""', "is empty"),
        (f"neighbours bare {A}", "no prepared corpus"),
    ],
)
def test_a_mistake_gets_one_line(home, command, message):
    if not (home / "bare").exists():
        model = TextVAE.from_pretrained(home / "run")
        model.save_pretrained(home / "bare")
        vector = directions.Direction(torch.ones(4), torch.ones(4), 0.0)
        directions.write(home / "run", "twice", vector, replace=True)
    done = call(command, cwd=home)
    told = done.stderr.decode()
    assert done.returncode == 1, told
    assert message in told
    assert len(told.strip().splitlines()) == 1, told


def test_where_the_sentences_lie_is_kept_and_found_afresh_when_stale(home):
    run = home / "run"
    first = Space.open(run)
    held = run / "cloud" / "train" / "tensors.safetensors"
    made = held.stat().st_mtime_ns
    assert torch.equal(Space.open(run).cloud.mean, first.cloud.mean)
    assert held.stat().st_mtime_ns == made
    held.write_bytes(held.read_bytes()[:-4] + b"\0\0\1\0")
    assert torch.equal(Space.open(run).cloud.mean, first.cloud.mean)
    assert held.stat().st_mtime_ns != made
    few = Space.open(run, sentences=10)
    assert len(few.cloud) == 10
    assert kept.read(run, "cloud/train")[1]["sentences"] == 10
    known = few.cloud.label.tolist()
    for text, y in zip(few.cloud.text(range(10)), known, strict=True):
        assert few.cloud.names[y] == ("first" if text[0] in "abc" else "last")
    again = few.model.encode(few.cloud.text(range(10)))
    assert np.allclose(again, few.cloud.mean.cpu(), atol=1e-5)


def test_what_is_kept_is_of_the_weights_it_was_made_with(home, tmp_path):
    """The run may be trained on after it was opened."""
    run = shutil.copytree(home / "run", tmp_path / "run")
    model = TextVAE.from_pretrained(run)
    assert model.weights == digest(run / "model.safetensors")
    trained = TextVAE.from_pretrained(run)
    with torch.no_grad():
        trained.vae.posterior.project.bias.add_(1.0)
    trained.save_pretrained(run)
    before = Space.open(run, model=model)  # kept by nobody before
    after = Space.open(run)
    assert not torch.allclose(after.cloud.mean, before.cloud.mean)
    directions.write(run, "way", directions.Direction(torch.ones(4), torch.ones(4), 0.0),
                     weights=model.weights)  # fmt: skip
    with pytest.raises(UserError, match="other weights"):
        directions.read(run, "way")
    prior = fitted.FittedPrior({"kind": "aggregate"}, torch.nn.Linear(1, 1))
    fitted.write(run, prior, weights=model.weights)
    with pytest.raises(UserError, match="other weights"):
        TextVAE.from_pretrained(run)
    assert not evaluation.keep_evaluation(run, "test", {"nll": 1.0}, model.weights)
    assert "test" not in evaluation.evaluations(run)


def test_a_language_model_has_no_space(home):
    model = TextVAE.from_pretrained(home / "run")
    none = TextVAE(model.config, model.tokenizer, language_model())
    with pytest.raises(UserError, match="latent = 0"):
        Space.open(home / "run", model=none)


def test_what_is_asked_in_python_is_checked_too(home):
    space = Space.open(home / "run")
    model = space.model
    for ask, message in (
        (lambda: model.encode([]), "there are no sentences"),
        (lambda: model.score([]), "there are no sentences"),
        (lambda: model.encode("anna"), "one sentence is a list of one"),
        (lambda: model.score(["anna \ud800"]), "line 1 holds half of a UTF-16 pair"),
        (lambda: space.outliers([]), "there are no sentences"),
        (lambda: model.encode(["anna", "ben"], label=["x"]), "1 labels for 2 sentences"),
        (lambda: space.neighbours(torch.zeros(3)), "4 finite numbers"),
        (lambda: space.neighbours(torch.full((4,), math.nan)), "4 finite numbers"),
        (lambda: space.neighbours("anna", -1), "at least 1"),
        (lambda: space.toward("anna", []), "at least one direction"),
    ):
        with pytest.raises(UserError, match=message):
            ask()

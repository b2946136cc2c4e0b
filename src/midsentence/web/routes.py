"""The text routes: parse, call, answer. All they know is in `Space`, `TextVAE` and `schemas`."""

from dataclasses import asdict
from typing import Any

import torch
from fastapi import APIRouter

from .. import latent
from ..bundle import TextVAE
from ..errors import UserError
from . import schemas as ask
from .context import Service, all_told, told

PATH_SAMPLES = 20
"""Importance samples for the NLL of each sentence on a way."""

MOST_DIRECTIONS = 256


def text(service: Service) -> APIRouter:
    """/v1/..."""
    api, model = APIRouter(prefix="/v1"), service.model
    around, place, written = service.around, service.place, service.written

    @api.get("/model")
    def describe() -> Any:
        """What model this is."""
        return service.card.told(list(service.directions))

    @api.post("/sample")
    def sample(asked: ask.Sample) -> Any:
        """New sentences from the prior."""
        z, labels = model.draw(asked.n, label=asked.label, seed=asked.seed)
        how = {"temperature": 1.0} | asked.decoding()
        texts = model.decode(z, label=labels, seed=asked.seed, **how)
        return {"texts": texts, "z": z.tolist(), "labels": labels}

    @api.post("/encode")
    def encode(asked: ask.Lines) -> Any:
        """Posterior means, and how far from the data they are."""
        z = model.encode(asked.texts, label=asked.label)
        if service.space is None:
            return {"z": z.tolist()}
        beyond = service.space.beyond(z.to(service.space.cloud.mean)).tolist()
        far = [service.space.is_far(share) for share in beyond]
        return {"z": z.tolist(), "beyond": beyond, "far": far}

    @api.post("/decode")
    def decode(asked: ask.Decode) -> Any:
        """A sentence for each z."""
        return {"written": written(torch.stack([place(z) for z in asked.z]), asked)}

    @api.post("/reconstruct")
    def reconstruct(asked: ask.Lines) -> Any:
        """Each sentence through its posterior mean and back."""
        return {"written": written(model.encode(asked.texts, label=asked.label), asked)}

    @api.post("/interpolate")
    def interpolate(asked: ask.Interpolate) -> Any:
        """Sentences on the way from one to another; with `nll`, theirs in nats a token."""
        a, b = place(asked.a), place(asked.b)
        if service.space is None and model.latent and asked.path != latent.DENSITY:
            a, b = (model.encode([p], label=asked.label)[0] if isinstance(p, str) else p
                    for p in (a, b))  # fmt: skip
            points = latent.path(asked.path, a, b, asked.steps, sphere=model.vae.sphere)
            found = written(points, asked)
        else:
            found = all_told(around(asked.label).interpolate(
                a, b, asked.steps, path=asked.path, seed=asked.seed, **asked.decoding(),
            ))  # fmt: skip
        answer: dict[str, Any] = {"written": found}
        if asked.nll:
            answer["nll"] = [_nll(model, w["text"], asked.label) for w in found]
        return answer

    @api.post("/score")
    def score(asked: ask.Score) -> Any:
        """log p(x) in nats by importance sampling, with its standard error."""
        found = model.score(asked.texts, asked.samples, label=asked.label, seed=asked.seed)
        return {"scores": [asdict(s) for s in found]}

    @api.post("/neighbours")
    def neighbours(asked: ask.Neighbours) -> Any:
        """The nearest training sentences."""
        space = around(asked.label)
        z = space.at(place(asked.text))
        beyond = float(space.beyond(z[None])[0])
        near = [asdict(n) for n in space.neighbours(z, asked.n)]
        return {"neighbours": near, "beyond": beyond, "far": space.is_far(beyond)}

    @api.post("/analogy")
    def analogy(asked: ask.Analogy) -> Any:
        """What is to c as b is to a."""
        ends = [place(p) for p in (asked.a, asked.b, asked.c)]
        return {"written": told(around(asked.label).analogy(*ends, seed=asked.seed,
                                                            **asked.decoding()))}  # fmt: skip

    @api.post("/edit")
    def edit(asked: ask.Edit) -> Any:
        """A sentence moved along a direction."""
        way = service.direction(asked.direction)
        found = around(asked.label).edit(place(asked.text), way, asked.strength, seed=asked.seed,
                                         **asked.decoding())  # fmt: skip
        return {"written": told(found)}

    @api.post("/toward")
    def toward(asked: ask.Toward) -> Any:
        """A sentence moved until several directions' classifiers agree."""
        wanted = [(service.direction(name), True) for name in asked.wanted]
        wanted += [(service.direction(name), False) for name in asked.unwanted]
        if not wanted:
            raise UserError("name at least one direction in wanted or unwanted")
        found = around(asked.label).toward(place(asked.text), wanted, method=asked.method,
                                           seed=asked.seed, **asked.decoding())  # fmt: skip
        return {"written": told(found)}

    @api.post("/vary")
    def vary(asked: ask.Vary) -> Any:
        """Sentences about one."""
        found = around(asked.label).vary(asked.text, asked.n, asked.radius, seed=asked.seed,
                                         **asked.decoding())  # fmt: skip
        return {"written": all_told(found)}

    @api.post("/traverse")
    def traverse(asked: ask.Traverse) -> Any:
        """Along each of the most active dimensions."""
        found = around(asked.label).traverse(
            place(asked.text), asked.dimensions, asked.steps, asked.span, seed=asked.seed,
            **asked.decoding(),
        )  # fmt: skip
        return {"dimensions": {str(d): all_told(row) for d, row in found.items()}}

    @api.post("/denoise")
    def denoise(asked: ask.Denoise) -> Any:
        """Each sentence drawn toward where the data is."""
        found = around(asked.label).denoise(asked.texts, asked.strength, asked.steps,
                                            seed=asked.seed, **asked.decoding())  # fmt: skip
        return {"written": all_told(found)}

    @api.post("/outliers")
    def outliers(asked: ask.Outliers) -> Any:
        """Sentences, the strangest first."""
        found = around(asked.label).outliers(asked.texts, by=asked.by, samples=asked.samples,
                                             seed=asked.seed)  # fmt: skip
        return {"outliers": [asdict(o) for o in found]}

    @api.post("/cluster")
    def cluster(asked: ask.Clusters) -> Any:
        """k-means of the training sentences, the largest first."""
        found = around(asked.label).cluster(asked.count, examples=asked.examples, seed=asked.seed,
                                            **asked.decoding())  # fmt: skip
        return {"clusters": [asdict(c) | {"centre": told(c.centre)} for c in found]}

    @api.get("/directions")
    def known_directions() -> Any:
        """Directions by name."""
        known = list(service.directions.items())  # others add to them meanwhile
        return {"directions": [{"name": n, **d.about} for n, d in known]}

    @api.post("/direction")
    def direction(asked: ask.NewDirection) -> Any:
        """What separates two kinds of sentences, kept by name until the service ends."""
        taken = UserError(f"there is a direction {asked.name!r} already: choose another name")
        if asked.name in service.directions:
            raise taken
        if len(service.directions) >= MOST_DIRECTIONS:
            raise UserError(f"there are {MOST_DIRECTIONS} directions already; that is the most")
        found = around(asked.label).direction(asked.before, asked.after, asked.method)
        if service.directions.setdefault(asked.name, found) is not found:
            raise taken  # meanwhile
        return {"name": asked.name, **found.about}

    return api


def _nll(model: TextVAE, line: str, label: str | None) -> float:
    if not line.strip():
        return float("nan")
    found = model.score([line], PATH_SAMPLES, label=label)[0]
    return -found.log_px / found.tokens

"""Tiny models and text, made here: tests need no data."""

import numpy as np
import torch

from midsentence import config
from midsentence.assembly import assemble
from midsentence.parts.decoders import DECODERS
from midsentence.parts.encoders import ENCODERS
from midsentence.parts.flows import FLOWS
from midsentence.text.batches import Batch, collate
from midsentence.vae import VAE

VOCAB = 9

SMALL = {
    "lstm": {"embedding": 5, "hidden": 6},
    "gru": {"embedding": 5, "hidden": 6},
    "transformer": {"hidden": 8, "heads": 2},
    "none": {},
}

SMALL_DENSITIES = {
    **{name: {"layers": 2, "width": 6} for name in FLOWS},
    "flow": {"layers": 2, "width": 6},
    "mog": {"components": 4},
    "vamp": {"components": 4},
    "vmf": {"kappa": 5.0},
}

TEXT = [
    f"{p} {v} {t}"
    for p in ("anna", "ben", "carla", "dirk")
    for v in ("sees", "likes", "paints")
    for t in ("a book", "two trees", "the sea")
]
"""Sentences for runs that train on text."""

REAL_ENCODERS = [kind for kind in ENCODERS if kind != "none"]
PAIRINGS = [(e, d) for e in REAL_ENCODERS for d in DECODERS]


def tiny(
    encoder="lstm",
    decoder="lstm",
    *,
    latent=3,
    vocab=VOCAB,
    reading=None,
    writing=None,
    **sections,
) -> VAE:
    """A float64 model, with weights large enough that no law holds by everything being zero.

    reading, writing: more settings of the encoder and of the decoder.
    """
    tree = {
        "latent": latent,
        "encoder": {"kind": encoder, **SMALL[encoder], **(reading or {})},
        "decoder": {"kind": decoder, **SMALL[decoder], **(writing or {})},
        "precision": "float32",
    }
    for name, section in sections.items():
        section = SMALL_DENSITIES.get(section.get("kind"), {}) | section
        tree[name] = tree.get(name, {}) | section
    vae = assemble(config.resolve(tree), vocab)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return vae.double().eval()


def language_model(decoder="lstm", **settings) -> VAE:
    return tiny("none", decoder, latent=0, **settings)


def batch(lengths=(3, 1, 5, 4), vocab=VOCAB, seed=0) -> Batch:
    rng = np.random.default_rng(seed)
    return collate([rng.integers(3, vocab, n) for n in lengths])


class Lines:
    """Sentences of ids with what a token store offers."""

    def __init__(self, ids):
        self.ids = [np.asarray(i) for i in ids]
        self.lengths = np.array([len(i) for i in self.ids])
        self.sizes = 2 * self.lengths
        self.labels = None

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.ids[index]


def lines(count=40, vocab=VOCAB, seed=0) -> Lines:
    rng = np.random.default_rng(seed)
    return Lines([rng.integers(3, vocab, rng.integers(1, 8)) for _ in range(count)])

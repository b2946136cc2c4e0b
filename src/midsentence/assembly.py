"""A model folder: settings, vocabulary and weights, put together, written and read."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from . import config as configuration
from . import processes
from .config import Config
from .errors import UserError
from .learning.checkpoint import save_tensors
from .opening import verify
from .parts.decoders import DECODERS
from .parts.encoders import ENCODERS
from .parts.flows import BENT
from .parts.head import BagOfWords, Head
from .parts.labels import Labels
from .parts.mixture import make_head
from .parts.posteriors import POSTERIORS
from .parts.priors import PRIORS
from .parts.refinement import Refinement
from .seeds import seeded
from .text.tokenizer import Tokenizer
from .vae import VAE
from .weights import build, tensors_of
from .writing import replace_files

FILES = ("config.toml", "tokenizer.json", "model.safetensors")
SHAPING = {"seed", "latent", "encoder", "posterior", "prior", "decoder", "head", "labels", "refine"}
"""What of the settings a model is built from."""


def assemble(config: Config, vocab: int) -> VAE:
    """The model that `config` describes, with fresh weights from `config.seed`."""
    size = config.latent
    if (size == 0) != (config.encoder["kind"] == "none"):
        raise UserError("latent = 0 and encoder.kind = 'none' go together: a language model")
    if size == 0 and config.posterior["kind"] != "gaussian":
        raise UserError("a language model (latent = 0) has no posterior: leave posterior.kind out")
    with seeded(config.seed, torch.device("cpu")):
        shares, refine, asked = config.labels.shares, config.refine, config.objective
        labels = Labels(shares, config.labels.size, size) if shares else None
        more = labels.size if labels else 0
        encoder = configuration.build(ENCODERS, config.encoder, vocab)
        posterior = configuration.build(POSTERIORS, config.posterior, encoder.summary + more, size)
        prior = configuration.build(PRIORS, config.prior, size, posterior)
        if prior.sphere != posterior.sphere:
            raise UserError(
                f"posterior {config.posterior['kind']!r} and prior {config.prior['kind']!r} do not "
                "go together: 'vmf' lies on the sphere, and needs prior.kind = 'sphere' or 'vamp'"
            )
        for unused in (labels.loc, labels.log_scale) if labels and prior.sphere else ():
            unused.requires_grad_(False)  # the sphere can't be stretched
        learns = any(p.requires_grad for p in prior.parameters())
        if asked.get("alpha") == 1 and learns and not prior().has_rsample:
            raise UserError(
                f"prior {config.prior['kind']!r} learns by the KL, which objective.alpha = 1 takes "
                "away: set that below 1, or prior.kind = 'normal' or 'flow'"
            )
        decoder = configuration.build(DECODERS, config.decoder, vocab, size + more)
        embedding = decoder.input.embedding
        head = make_head(
            decoder.width, embedding, precision=config.precision, **config.head.model_dump()
        )
        bow = BagOfWords(size, vocab) if asked["bow"] else None
        refinement = Refinement(refine.steps, refine.rate) if refine.steps else None
        twice = asked["fraternal"] > 0
        if twice and head.softmaxes > 1:
            raise UserError("objective.fraternal goes with one softmax: set head.softmaxes to 1")
        vae = VAE(encoder, posterior, prior, decoder, head, bow, labels, refinement, twice)
        if config.training.init is not None:
            uniform(vae, config.training.init)
    return vae


def uniform(vae: VAE, bound: float) -> None:
    """The published initialisation: U(+-bound), embeddings U(+-0.1) (He et al. 2019).

    What begins somewhere on purpose stays there: norms, gates, mixtures, flows.
    """
    drawn = (nn.Linear, nn.Embedding, nn.LSTM, nn.GRU, Head)
    bent = [m for m in vae.modules() if isinstance(m, BENT)]
    kept = {vae.decoder.gate}.union(*(m.modules() for m in bent))
    held = [m for m in vae.modules() if isinstance(m, drawn) and m not in kept]
    for parameter in dict.fromkeys(p for m in held for p in m.parameters(recurse=False)):
        if parameter.requires_grad:
            nn.init.uniform_(parameter, -bound, bound)
    for module in vae.modules():
        if isinstance(module, nn.Embedding):
            nn.init.uniform_(module.weight, -0.1, 0.1)


def pick_device(name: str) -> torch.device:
    """``auto`` is the first accelerator there is, else the processor. Raises UserError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise UserError(f"device {name!r} is not on this machine; use cpu") from None


def save(folder: Path, config: Config, tokenizer: Tokenizer, vae: VAE) -> None:
    """Write a model folder, in place of the model that is there.

    Of several processes the first writes; all must ask.
    """
    tensors = processes.collected(tensors_of(vae))
    if not processes.first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_files(
        folder,
        {
            FILES[0]: config.save,
            FILES[1]: tokenizer.save,
            FILES[2]: partial(save_tensors, tensors),
        },
    )


def read(folder: Path) -> tuple[Config, Tokenizer, VAE, str]:
    """What `save` wrote, and the SHA-256 of the weights; every file is checked against its own.
    Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `midsentence train` makes one")
    digests = verify(folder, FILES)
    settings, words, weights = (folder / name for name in FILES)
    config = configuration.load(settings)
    tokenizer = Tokenizer.load(words)
    vae = build(
        lambda: assemble(config, tokenizer.vocab_size), config.model_dump(include=SHAPING), weights
    )
    return config, tokenizer, vae, digests[weights.name]

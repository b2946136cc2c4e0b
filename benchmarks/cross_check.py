"""Our estimators against the reference's: benchmarks/cross_check.py RUN --peer CHECKOUT

RUN is a model of the published sizes (`runs/reproduce.sh`: monotone, aggressive, ae-free-bits ...),
CHECKOUT one of vae-lagging-encoder. Our weights are put into its modules, and both measure the same
test sentences: log p(x|z) at the posterior mean and the analytic KL, which must agree to rounding;
the ELBO and the importance-weighted NLL, which have noise of their own. Nats a sentence. Then the
gradients of the ELBO of a batch of training sentences, with the same noise and without dropout.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributions import Normal, kl_divergence

import lanes
from midsentence import VAE, TextVAE, pipeline
from midsentence.measuring.likelihood import importance_weighted
from midsentence.measuring.survey import InMemory, survey
from midsentence.text.batches import collate

PRIOR = Normal(0.0, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32, help="sentences of the gradients")
    asked = parser.parse_args()

    model = TextVAE.from_pretrained(asked.run, device="cpu")
    model.vae.head.precision = "float32"  # as the reference computes
    corpus = pipeline.Corpus.open(asked.run / "corpus")
    rows = np.random.default_rng(0).permutation(len(corpus.test))[: asked.sentences].tolist()
    test = InMemory([corpus.test[i].tolist() for i in rows])

    with tempfile.TemporaryDirectory() as folder:
        words = model.tokenizer.pieces(range(model.tokenizer.vocab_size))
        (Path(folder) / "words.json").write_text(json.dumps(words))
        peer = lanes.Peer(Path(folder), "ptb", asked.peer.resolve())
        peer.load(str(asked.run / "model.safetensors"))
    # Its encoder reads <s> too, which says nothing and ours leaves out.
    encoder, whole = peer.model.encoder, peer.model.encoder.forward
    encoder.forward = lambda x: whole(x[:, 1:])

    def both() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = survey(model.vae, test)
        ours_kl, mean = found.kl.sum(1).numpy(), found.mean
        ours = [float(model.vae.log_px(collate([ids]), mean[i][None, None]))
                for i, ids in enumerate(test.ids)]  # fmt: skip
        theirs, theirs_kl, theirs_elbo, theirs_iw = [], [], [], []
        torch.manual_seed(0)
        for ids in test.ids:
            x = torch.tensor([[1, *ids, 2]])
            mu = peer.model.encode_stats(x)[0]
            theirs.append(-peer.model.decoder.reconstruct_error(x, mu[:, None]).item())
            loss, _, kl = peer.model.loss(x, 1.0, nsamples=1)
            theirs_elbo.append(-loss.item())
            theirs_kl.append(kl.item())
            theirs_iw.append(peer.model.nll_iw(x, asked.samples, ns=100).item())
        ours_iw = -importance_weighted(model.vae, test, asked.samples)[0]
        ours_elbo = (found.log_px - found.kl.sum(1)).numpy()
        return {
            "log p(x|mean)": (np.array(ours), np.array(theirs)),
            "KL": (ours_kl, np.array(theirs_kl)),
            "ELBO, one sample": (ours_elbo, np.array(theirs_elbo)),
            f"NLL, {asked.samples} samples": (np.asarray(ours_iw), np.array(theirs_iw)),
        }

    print(f"{len(rows)} test sentences of {asked.run.name}\n")
    print("| | ours | theirs | difference | largest |\n|---|---|---|---|---|")
    with torch.no_grad():
        for name, (ours, theirs) in both().items():
            gap = ours - theirs
            error = gap.std(ddof=1) / len(gap) ** 0.5
            print(f"| {name} | {ours.mean():.4f} | {theirs.mean():.4f} | "
                  f"{gap.mean():+.5f} ± {error:.5f} | {np.abs(gap).max():.2g} |")  # fmt: skip

    ids = equally_long(corpus.train, asked.batch)
    print(f"\nGradients of the ELBO of {len(ids)} training sentences of {len(ids[0])} words; ours "
          "are off by so many parts of the norm\n\n"
          "| its weights | norm | in fp32 | in bf16 |\n|---|---|---|---|")  # fmt: skip
    eps = torch.randn(len(ids), model.latent, generator=torch.Generator().manual_seed(0))
    theirs = gradients_of_theirs(peer, ids, eps)
    by = {kind: gradients_of_ours(model.vae, ids, eps, kind) for kind in ("float32", "bfloat16")}
    for name, right in theirs.items():
        ours = [found[name] for found in by.values() if name in found]
        if not ours:
            continue  # a bias that does not learn
        right = right[-len(ours[0]) :]  # our bias of words has no place for <pad> and <s>
        errors = [float((each - right).norm() / right.norm()) for each in ours]
        print(f"| {name} | {right.norm():.4f} | " + " | ".join(f"{e:.1e}" for e in errors) + " |")


def equally_long(store: Any, count: int) -> list[list[int]]:
    """Sentences of the commonest number of words, for the reference pads nothing."""
    length = int(np.bincount(store.lengths).argmax())
    rows = np.flatnonzero(store.lengths == length)[:count]
    return [store[int(i)].tolist() for i in rows]


def gradients_of_ours(
    vae: VAE, ids: list[list[int]], eps: torch.Tensor, precision: str
) -> dict[str, torch.Tensor]:
    batch = collate(ids)
    vae.head.precision = precision
    vae.zero_grad()
    q = vae.infer(batch).base_dist
    elbo = vae.log_px(batch, (q.mean + q.stddev * eps)[None])[0] - kl_divergence(q, PRIOR).sum(1)
    elbo.mean().neg().backward()
    named = {lanes.Peer.name(name): p.grad for name, p in vae.named_parameters()}
    return {name: grad for name, grad in named.items() if grad is not None}


def gradients_of_theirs(
    peer: lanes.Peer, ids: list[list[int]], eps: torch.Tensor
) -> dict[str, torch.Tensor]:
    x = torch.tensor([[1, *line, 2] for line in ids])
    peer.model.zero_grad()
    mean, logvar = peer.model.encode_stats(x)
    sd = (logvar / 2).exp()
    lost = peer.model.decoder.reconstruct_error(x, (mean + sd * eps)[:, None])[:, 0]
    (lost + kl_divergence(Normal(mean, sd), PRIOR).sum(1)).mean().backward()
    return {name: p.grad for name, p in peer.model.named_parameters() if p.grad is not None}


if __name__ == "__main__":
    main()

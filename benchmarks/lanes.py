"""What is timed by speed.py: the same five tasks by midsentence and by vae-lagging-encoder.

Each lane lives in a process of its own and does one task when a line on standard input names it.
The reference is imported from a checkout the user names; its training loop is its text.py's.
"""

import contextlib
import json
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

SIZES = {
    "ptb": {"ni": 256, "enc_nh": 256, "dec_nh": 256},
    "yahoo": {"ni": 512, "enc_nh": 1024, "dec_nh": 1024},
}
LATENT, DROPOUT, MOST_WORDS, SAMPLES = 32, 0.5, 100, 500


class Ours:
    """midsentence, through its public functions."""

    def __init__(self, folder: Path, size: str, precision: str, settings: list[str]):
        from midsentence import config
        from midsentence.text.corpus import Corpus
        from midsentence.text.store import pick

        corpus = Corpus.open(folder / "corpus")
        # Validation is no part of the reference's loop either: as little of it as there can be.
        self.corpus = replace(corpus, valid=pick(corpus.valid, 8, seed=0))
        self.folder = folder
        shape = SIZES[size]
        reads = f"encoder.embedding={shape['ni']}", f"encoder.hidden={shape['enc_nh']}"
        writes = f"decoder.embedding={shape['ni']}", f"decoder.hidden={shape['dec_nh']}"
        self.config = config.compose(
            "ptb",
            None,
            [*reads, *writes, f"decoder.dropout={DROPOUT}", "decoder.embedding_dropout=0",
             "optimizer.sgd_decay=0", "head.tied=false", "head.gradient_words=0",
             "head.sampled_words=0", "decoder.locked_dropout=true",
             "encoder.pooling=last", f"precision={precision}", "training.epochs=1000", *settings],
        )  # fmt: skip
        self.config.seed = 1
        if size == "yahoo":
            self.config.training.batch_tokens = None  # the recipe's own is for short sentences
        self.model: Any = None

    def train(self, steps: int, batch: int | None, tag: str = "timed") -> dict[str, float]:
        """Words a second of the middle record, out of records of 25 steps, without the first."""
        from midsentence.learning import trainer

        out = self.folder / f"run-{tag}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        config = self.config.model_copy(deep=True)
        config.training.max_steps = steps
        if batch:
            config.training.batch_sentences, config.training.batch_tokens = batch, 1 << 20
        speeds: list[float] = []

        def listen(event: str, record: dict[str, Any]) -> None:
            if event == "train":
                speeds.append(record["words_per_second"])

        trainer.train(config, self.corpus, out, listener=listen)
        return {"rate": float(np.median(speeds[1:] or speeds))}

    def load(self, path: str) -> dict[str, float]:
        from midsentence.assembly import assemble
        from midsentence.weights import load_tensors

        self.model = assemble(self.config, self.corpus.tokenizer.vocab_size).eval()
        with torch.no_grad():
            for name, value in load_tensors(Path(path)).items():
                self.model.get_parameter(name).copy_(value)
        return {}

    def likelihood(self, rows: list[int], words: int = 0) -> dict[str, float]:
        from midsentence.measuring.likelihood import importance_weighted
        from midsentence.measuring.survey import InMemory

        test = InMemory([self.corpus.test[i].tolist() for i in rows])
        began = time.perf_counter()
        found, _ = importance_weighted(self.model, test, SAMPLES, words=words)
        return {"rate": len(rows) / (time.perf_counter() - began), "nll": -float(found.mean())}

    def write(self, count: int, kind: str) -> dict[str, Any]:
        from midsentence.generate import Decoding, generate

        how = Decoding(greedy=kind == "greedy", beam=5 * (kind == "beam"), max_length=MOST_WORDS)
        z = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(0))
        began = time.perf_counter()
        lines = self.corpus.tokenizer.decode(generate(self.model, z, how))
        return {"rate": count / (time.perf_counter() - began), "lines": lines}


class Peer:
    """vae-lagging-encoder as it ships: fp32, sentences of equal length together."""

    def __init__(self, folder: Path, size: str, checkout: Path):
        sys.path.insert(0, str(checkout))
        from data.text_data import MonoTextData, VocabEntry
        from modules import VAE, LSTMDecoder, LSTMEncoder

        words = json.loads((folder / "words.json").read_text())
        self.vocab = VocabEntry({word: i for i, word in enumerate(words)})
        self.folder, self.data = folder, MonoTextData
        args = SimpleNamespace(
            **SIZES[size], nz=LATENT, dec_dropout_in=DROPOUT, dec_dropout_out=DROPOUT,
            device=torch.device("cpu"),
        )  # fmt: skip

        def uniform(bound: float) -> Any:
            return lambda tensor: torch.nn.init.uniform_(tensor, -bound, bound)

        torch.manual_seed(1)
        encoder = LSTMEncoder(args, len(words), uniform(0.01), uniform(0.1))
        self.model = VAE(encoder, LSTMDecoder(args, self.vocab, uniform(0.01), uniform(0.1)), args)
        self.batches: list[torch.Tensor] = []

    def read(self, part: str, batch: int) -> list[torch.Tensor]:
        data = self.data(str(self.folder / f"{part}.txt"), vocab=self.vocab)
        made = data.create_data_batch(batch_size=batch, device="cpu", batch_first=True)
        return list(made)

    def train(self, steps: int, batch: int | None, tag: str = "timed") -> dict[str, float]:
        self.batches = self.batches or self.read("train", batch or 32)
        self.model.train()
        sides = (self.model.encoder, self.model.decoder)
        optimizers = [torch.optim.SGD(side.parameters(), lr=1.0) for side in sides]
        order = np.random.default_rng(0).permutation(len(self.batches))
        speeds, words, since = [], 0, time.perf_counter()
        for step in range(1, steps + 1):
            ids = self.batches[order[step % len(order)]]
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss, reconstruction, kl = self.model.loss(ids, 0.1, nsamples=1)
            loss.mean(dim=-1).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            for optimizer in optimizers:
                optimizer.step()
            reconstruction.sum().item(), kl.sum().item()  # it adds both to its report every step
            words += ids.shape[0] * (ids.shape[1] - 1)
            if step % 25 == 0:
                now = time.perf_counter()
                speeds.append(words / (now - since))
                words, since = 0, now
        return {"rate": float(np.median(speeds[1:] or speeds))}

    @staticmethod
    def name(ours: str) -> str:
        """Its name of one of our parameters."""
        own = {
            "encoder.embedding.weight": "encoder.embed.weight",
            "posterior.project.weight": "encoder.linear.weight",
            "posterior.project.bias": "encoder.linear.bias",
            "decoder.input.embedding.weight": "decoder.embed.weight",
            "decoder.first.weight": "decoder.trans_linear.weight",
            "head.table": "decoder.pred_linear.weight",
            "head.bias": "decoder.pred_linear.bias",
        }
        name = ours.replace("encoder.forwards.0.", "encoder.lstm.")
        return own.get(ours, name.replace("decoder.net.", "decoder.lstm."))

    def load(self, path: str) -> dict[str, float]:
        """Our weights under its names; the two biases it has not are given to it."""
        from safetensors.torch import load_file

        for name, value in load_file(path).items():
            if name == "head.bias":
                value = torch.cat([torch.full((2,), -torch.inf), value])
            owner, _, leaf = self.name(name).rpartition(".")
            setattr(self.model.get_submodule(owner), leaf, torch.nn.Parameter(value))
        self.model.eval()
        return {}

    def likelihood(self, rows: list[int], words: int = 0) -> dict[str, float]:
        lines = (self.folder / "test.txt").read_text("utf-8").splitlines()
        sentences = [
            torch.tensor([[1, *(self.vocab[w] for w in lines[i].split()), 2]]) for i in rows
        ]
        began = time.perf_counter()
        with torch.no_grad():
            found = [self.model.nll_iw(ids, SAMPLES, ns=100).item() for ids in sentences]
        return {
            "rate": len(rows) / (time.perf_counter() - began),
            "nll": float(np.mean(found)),
        }

    def write(self, count: int, kind: str) -> dict[str, Any]:
        z = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(0))
        began = time.perf_counter()
        with torch.no_grad():
            written = self.model.decode(z, kind, K=5)
        took = time.perf_counter() - began
        lines = [" ".join(w for w in line if w not in ("<s>", "</s>")) for line in written]
        return {"rate": count / took, "lines": lines}


def serve(
    lane: str, folder: Path, size: str, other: str, threads: int, settings: list[str]
) -> None:
    """Answer tasks, a JSON line each, until standard input ends."""
    torch.set_num_threads(threads)
    answers, sys.stdout = sys.stdout, sys.stderr
    worker: Any = (
        Ours(folder, size, other, settings) if lane == "ours" else Peer(folder, size, Path(other))
    )
    for line in sys.stdin:
        task, arguments = json.loads(line)
        if task == "memory":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found: dict[str, Any] = {"rate": peak}
        else:
            found = getattr(worker, task)(**arguments)
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(found), file=answers, flush=True)

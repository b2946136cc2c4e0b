"""From a run to a folder to publish: what `midsentence export` does, in Python."""

import json
import math
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import jinja2
import tokenizers

from . import __version__, assembly
from .bundle import LONGEST, TextVAE
from .config import Config
from .errors import UserError
from .evaluation import evaluations, own_prior
from .learning.records import read as read_records
from .report import FIGURES, OF_THE_LATENT, Verdict, flat, number, verdict
from .reporting import describe
from .text.corpus import Corpus
from .text.readers import PARTS, plain
from .text.tokenizer import BOS, EOS, PAD, SPECIALS, UNK, UNKNOWN
from .writing import clean, whole_folder

CONFIG, CARD, WORDS = "config.json", "README.md", "tokenizer.hf.json"
"""What a published folder holds besides the model's own files."""

SAMPLES = 10


def export(run: str | Path, out: str | Path, *, onnx: bool = False) -> Path:
    """Write the model of a run, with its fitted prior, as a folder to publish.

    A model folder like any other, which `TextVAE.from_pretrained` opens, and in it ``config.json``,
    a model card as ``README.md``, and ``tokenizer.hf.json`` for `tokenizers`. Of the corpus it has
    the vocabulary and whatever the samples repeat; of paths the last part. onnx: also the networks,
    as the folder ``onnx`` (`onnx_export`). The folder appears whole or not at all. Raises UserError
    where `out` holds anything, there is no finished model, or it cannot be written as ONNX.
    """
    run, out = Path(run), Path(out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: choose another --out")
    model = TextVAE.from_pretrained(run, "cpu")
    if onnx:
        from . import onnx_export

        onnx_export.check(model.vae)
    model.config = published(model.config)
    try:
        clean(out.parent, out.name)  # of an export that was killed
        with whole_folder(out, assembly.FILES) as folder:
            model.save_pretrained(folder)
            _write(folder / CONFIG, json.dumps(facts(model), indent=2, ensure_ascii=False) + "\n")
            _write(folder / WORDS, for_tokenizers(folder / "tokenizer.json").to_str())
            if onnx:
                onnx_export.write(folder, model.vae)
            _write(folder / CARD, card(run, plain(out.name), model, onnx))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error})") from None
    return out


def _write(path: Path, text: str) -> None:
    # A lone surrogate, which a byte-level decoder can leave, has no UTF-8.
    path.write_bytes(text.encode("utf-8", "replace"))


def published(config: Config) -> Config:
    """The settings without where on this machine the corpus lies."""
    held = config.model_copy(deep=True)
    given = held.corpus.source
    given = [given] if isinstance(given, str) else given or []
    held.corpus.source = " ".join(map(_name, given)) or None
    held.corpus.valid, held.corpus.test = (
        part and _name(part) for part in (held.corpus.valid, held.corpus.test)
    )
    return held


def _name(path: str) -> str:
    return Path(path.replace("\\", "/")).name


def for_tokenizers(path: Path) -> tokenizers.Tokenizer:
    """A saved tokenizer without what is ours: what `tokenizers.Tokenizer.from_file` can read."""
    held = json.loads(path.read_text("utf-8"))
    found = tokenizers.Tokenizer.from_str(json.dumps(held["tokenizer"]))
    if held["kind"] == "char":  # by itself it would put spaces between
        parts = [tokenizers.decoders.Replace(SPECIALS[UNK], UNKNOWN), tokenizers.decoders.Fuse()]
        found.decoder = tokenizers.decoders.Sequence(parts)
    return found


def facts(model: TextVAE) -> dict[str, Any]:
    """``config.json``: what the model is, under the names that the Hugging Face hub knows."""
    config = model.config
    parts = ("encoder", "posterior", "prior", "decoder")
    return {
        "model_type": "midsentence",
        "architectures": ["TextVAE"],
        "midsentence_version": __version__,
        "vocab_size": model.tokenizer.vocab_size,
        "latent": model.latent,
        **{part: getattr(config, part) for part in parts},
        "fitted_prior": None if model.fitted is None else dict(model.fitted.settings),
        "labels": model.labels,
        "tokenizer": model.tokenizer.kind,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "unk_token_id": UNK,
        "max_length": min(config.corpus.max_tokens, LONGEST),
        "parameters": model.parameters,
        "dtype": "float32",
    }


def card(run: Path, name: str, model: TextVAE, onnx: bool) -> str:
    """``README.md``. name: of the published folder, which the example opens. Raises UserError."""
    seed, tables = model.config.seed, evaluations(run)
    source = str(model.config.corpus.source or "not known")
    own = {part: table for part, table in tables.items() if own_prior(part)}
    known = {key for table in tables.values() for key in table}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("midsentence", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("card.md.j2").render(
        name=name,
        quoted=json.dumps(name, ensure_ascii=False),
        version=__version__,
        model=facts(model),
        language="en" if source.startswith("builtin:") else "und",
        source=plain(source),
        corpus=corpus_facts(run, model.config),
        trained=trained(run),
        settings=flat(model.config.model_dump(exclude_none=True)),
        tables=tables,
        rows=[
            (label, [number(table.get(key), form) for table in tables.values()])
            for key, (label, form, _) in FIGURES.items()
            if key in known - (set() if model.latent else OF_THE_LATENT)
        ],
        verdict=judged(own.get("test") or next(iter(own.values()), {}), model.latent),
        samples=model.sample(SAMPLES, seed=seed),
        seed=seed,
        onnx=onnx,
    )


def judged(table: Mapping[str, float], latent: int) -> Verdict | None:
    """What the report would say by a table alone; nothing without one."""
    kl, mi, active = (table.get(key, math.nan) for key in ("kl", "mi", "active_units"))
    return verdict(kl, mi, active, latent, table.get("elbo", 0.0)) if table else None


def corpus_facts(run: Path, config: Config) -> dict[str, Any] | None:
    """The corpus in figures; None where the folder has none, as an exported one."""
    if not (run / "corpus").exists():
        return None
    found = describe(config, Corpus.open(run / "corpus"))
    return found | {"sentences": " / ".join(f"{found[part]:,} {part}" for part in PARTS)}


def trained(run: Path) -> str | None:
    """For how long."""
    path = run / "metrics.jsonl"
    records = read_records(path) if path.exists() else []
    if not records:
        return None
    last = records[-1]
    return f"{last['step']:,} steps in {timedelta(seconds=round(last['seconds']))} (h:mm:ss)"

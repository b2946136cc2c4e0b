"""From a source to three token stores and the tokenizer that made them."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..opening import verify_early
from ..writing import clean, unfinished, write_manifest
from .readers import PARTS, Line, files, read
from .splitting import split
from .store import FILES, TokenStore
from .tokenizer import Tokenizer
from .tolerance import Bad

WORDS, MANIFEST = ("tokenizer.json",), "manifest.json"
SPOOLS = {part: f".{part}.lines" for part in PARTS}
SPOOL: Any = {"encoding": "utf-8", "newline": "\n"}


@dataclass
class Corpus:
    """train, valid and test (which may be empty), tokenised by one tokenizer."""

    tokenizer: Tokenizer
    train: TokenStore
    valid: TokenStore
    test: TokenStore

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """A prepared corpus again. Raises UserError."""
        if not (folder / "tokenizer.json").exists():
            raise UserError(f"{folder} holds no prepared corpus")
        verify_early(folder, WORDS)
        tokenizer = Tokenizer.load(folder / WORDS[0])
        stores = [TokenStore.open(folder / part) for part in PARTS]
        if any(store.highest() >= tokenizer.vocab_size for store in stores):
            raise UserError(f"{folder}: its sentences are of another tokenizer: train afresh")
        return cls(tokenizer, *stores)


def vacant(folder: Path) -> None:
    """Raises UserError where a folder holds anything but a corpus of ours, whole or begun."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in PARTS and path.is_dir():
            ours = all(p.is_file() and p.name in (*FILES, MANIFEST) for p in path.iterdir())
        else:
            ours = path.name in (*WORDS, MANIFEST, *SPOOLS.values()) or unfinished(path.name)
        if not ours:
            raise UserError(f"{path} is in the way and not ours: choose another --out")
    try:
        verify_early(folder, WORDS)
        if (folder / WORDS[0]).exists():
            Tokenizer.load(folder / WORDS[0])
    except UserError:
        raise UserError(f"{folder} is in the way and not ours: choose another --out") from None


def prepare(
    source: str | Sequence[str],
    folder: Path,
    *,
    valid: str | None = None,
    test: str | None = None,
    text_field: str | None = None,
    label_field: str | None = None,
    valid_fraction: float = 0.05,
    test_fraction: float = 0.05,
    seed: int = 0,
    tokenizer_settings: dict[str, Any] | None = None,
    max_tokens: int | None = None,
    max_chars: int = 100_000,
    on_bad: str = "error",
    told: Callable[[str], None] = lambda text: None,
) -> Corpus:
    """Read, split, learn the tokenizer on the training part, tokenise once into `folder`.

    A part that has a file of its own is not split off; `test` may be empty, the others may not.
    The source is read once (it may be a pipe), through text files in `folder` that are removed
    afterwards. Sentences of more than `max_tokens` are left out (`TokenStore.dropped`).

    on_bad: what becomes of lines that can't be read (`readers.Bad`). told: of what was left out.

    Raises UserError, and leaves nothing behind, where a source cannot be read or is too small, or
    the folder holds something else.
    """
    vacant(folder)
    bad, name = Bad(on_bad), source if isinstance(source, str) else " ".join(source)
    named = files(source)
    if [*named, valid, test].count("-") > 1:
        raise UserError("standard input can be read once only: give files for the other parts")
    given = {"valid": valid, "test": test}
    fractions = {
        "valid": 0.0 if valid else valid_fraction,
        "test": 0.0 if test else test_fraction,
    }
    columns: dict[str, Any] = {
        "text_field": text_field,
        "label_field": label_field,
        "max_chars": max_chars,
        "bad": bad,
    }
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    spools = {part: folder / name for part, name in SPOOLS.items()}
    try:
        clean(folder)  # of what was begun by a process that was killed
        with ExitStack() as stack:
            written = {
                part: stack.enter_context(path.open("w", **SPOOL)) for part, path in spools.items()
            }
            for part, line in split(read(named, **columns), seed=seed, **fractions):
                written[part].write(_dump(line))
            for part, own in given.items():
                for line in read(own, **columns) if own else ():
                    written[part].write(_dump(line))
        for part, path in spools.items():
            if not path.stat().st_size and part != "test":
                mend = (
                    "lower corpus.valid_fraction and corpus.test_fraction"
                    if part == "train"
                    else "give --valid FILE or raise corpus.valid_fraction"
                )
                raise UserError(
                    f"{name} has too few lines that differ for a {part} part (a line that is there "
                    f"again goes where it went first): add some, or {mend}{bad.after()}"
                )
        if bad.count:
            told(str(bad))
        texts = (line.text for line in _load(spools["train"]))
        tokenizer = Tokenizer.train(texts, **tokenizer_settings or {})
        stores: list[TokenStore] = []
        names: list[str] = []
        for part, path in spools.items():
            store = TokenStore.write(
                folder / part, _load(path), tokenizer, label_names=names, max_tokens=max_tokens
            )
            stores.append(store)
            names = store.label_names
            if not len(store) and part != "test":
                raise UserError(
                    f"every {part} line of {given.get(part) or name} is over corpus.max_tokens ="
                    f" {max_tokens}: raise it"
                )
        tokenizer.save(folder / WORDS[0])
        write_manifest(folder, WORDS)
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made[1:]:
            with suppress(OSError):
                parent.rmdir()
        raise
    finally:
        for path in spools.values():
            path.unlink(missing_ok=True)
    return Corpus(tokenizer, *stores)


def _dump(line: Line) -> str:
    """One line of a file, for no text and no label has a tab or an end of line in it."""
    return f"{line.label or ''}\t{line.text}\n"


def _load(path: Path) -> Iterator[Line]:
    with path.open(**SPOOL) as file:
        for row in file:
            label, _, text = row[:-1].partition("\t")
            yield Line(text, label or None)

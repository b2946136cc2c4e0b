"""The sections of a configuration that are no parts with a kind: their fields and defaults."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .text.readers import plain

LONGEST_LABEL, LARGEST_SIZE = 200, 1 << 20


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class CorpusSettings(Section):
    """How lines are read and split; fixed once a run has begun.

    source: files, patterns, ``-`` or ``builtin:NAME``; the command line says it. valid: a file to
    validate on (`--valid`). test: a file to test on (`--test`). text_field: the text's column in a
    table, by its name in the first row, or by number from 0 in a table without such a row.
    label_field: the label's. valid_fraction: the part of the lines that
    is for validation, where no file is. test_fraction: the part that is for the test. max_tokens:
    longer sentences are left out. max_chars: longer lines count as unreadable. on_bad: what to do
    with unreadable lines: stop (``error``), leave them out (``skip``), or repair what can be
    (``replace``).
    """

    source: str | list[str] | None = None
    valid: str | None = None
    test: str | None = None
    text_field: str | None = None
    label_field: str | None = None
    valid_fraction: float = 0.05
    test_fraction: float = 0.05
    max_tokens: Annotated[int, Field(ge=1)] = 256
    max_chars: Annotated[int, Field(ge=1)] = 100_000
    on_bad: Literal["error", "skip", "replace"] = "error"


class TokenizerSettings(Section):
    """Strings <-> ids (`text.tokenizer`).

    kind: ``word``, ``char``, ``bpe``, ``unigram``, or ``auto``, which looks at the corpus.
    vocab_size: with the four special ids; by itself 20,000 words, 8,000 characters or 8,192 pieces,
    or fewer where the corpus is small. min_count: words, characters and bpe's pairs (2
    at least) that are seen less often are left out; unigram has no use for it.
    """

    kind: str = "auto"
    vocab_size: Annotated[int, Field(le=1 << 31)] | None = None
    min_count: Annotated[int, Field(ge=1, le=1 << 31)] = 1


class HeadSettings(Section):
    """See `parts.head.Head`."""

    tied: bool = False
    bias: bool = True
    label_smoothing: float = 0.0
    gradient_words: int = 0
    sampled_words: int | None = None
    softmaxes: Annotated[int, Field(ge=1, le=64)] = 1


def _label(name: str) -> str:
    """A label is shown on terminals: no control characters, as `text.readers` has it."""
    if plain(name) != name or len(name) > LONGEST_LABEL:
        raise ValueError(f"a label is at most {LONGEST_LABEL} characters, none of them controls")
    return name


class LabelSettings(Section):
    """With labels in the corpus the model is conditional on them (`parts.labels`).

    condition: without it labels are not looked at. size: of a label's vector. hidden: the part of
    the labels that a training step does not see, so that the model also knows sentences without
    one. shares: each label's part of the training lines; training fills it in.
    """

    condition: bool = True
    size: Annotated[int, Field(ge=1, le=LARGEST_SIZE)] = 16
    hidden: Annotated[float, Field(ge=0, le=1)] = 0.1
    shares: dict[Annotated[str, AfterValidator(_label)], Annotated[float, Field(ge=0, le=1)]] = {}


class RefineSettings(Section):
    """Semi-amortised inference (`parts.refinement`).

    steps: of gradient ascent on each sentence's bound; 0 is none. rate: of a step.
    """

    steps: Annotated[int, Field(ge=0, le=1000)] = 0
    rate: float = 0.1


class TrainingSettings(Section):
    """The budget (whichever of epochs, steps and minutes ends first), batches and stopping.

    epochs: times through the corpus at most, 0.5 is half of it; by itself 20, or as many as 2,000
    steps are where that is more. max_steps: steps at most. max_minutes: minutes of training at
    most. device: ``cpu``, ``cuda``, or ``auto``. threads: of torch; by default one a core.
    tensorboard: figures for it too, in the run's folder. clip: the norm that a gradient may have.
    batch_sentences: sentences of a batch at most.
    batch_tokens: padded positions of a batch at most; by itself 1,024, or as many as 32 sentences
    of mean length have where that is more. init: initialise all weights but embeddings
    uniformly within plus or minus this (embeddings: 0.1), as the published protocol does, but what
    begins somewhere on purpose (norms, gates, mixtures, flows); without it PyTorch's defaults.
    parts: a batch is computed in so many parts, one after the other or by several processes at
    once; by itself one a process. What is taken over a batch (free bits in the form ``batch``, MMD,
    batch normalisation) is taken over a part. strategy: ``ddp``, or ``fsdp`` where moments and
    gradients are too large for one process (`learning.sharding`). recompute: Transformer layers
    keep only what goes in. patience: stop after so many validations without a better bound, counted
    once KL annealing has ended; 0: never. validations: how many an epoch, about eight a run at
    least; by itself one, and forty a run at most if `epochs` is unset. valid_sentences: of a larger
    validation part so many, the same ones each time, are validated on, so that neither time nor
    memory grows with the corpus. compile: encoder and decoder through
    torch.compile while training, if there is a compiler. aggressive: steps of the encoder at most
    for one of the decoder; 0 is off (`learning.procedures`). pretrain: the part of the run in which
    there is no KL, after which the decoder begins anew; 0 is off. average: the part of the run from
    which on the mean of the weights is kept (`learning.averaging`); unset is off.
    """

    epochs: Annotated[float, Field(gt=0, le=1e9)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    batch_sentences: Annotated[int, Field(ge=1)] | None = None
    clip: Annotated[float, Field(gt=0)] = 5.0
    parts: int | None = None
    strategy: str = "ddp"
    recompute: bool = False
    init: Annotated[float, Field(gt=0, le=1e3)] | None = None
    validations: Annotated[float, Field(gt=0)] | None = None
    valid_sentences: Annotated[int, Field(ge=1)] = 10_000
    patience: int = 5
    threads: Annotated[int, Field(ge=1)] | None = None
    device: str = "auto"
    aggressive: Annotated[int, Field(ge=0)] = 0
    pretrain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    average: Annotated[float, Field(ge=0, lt=1)] | None = None
    compile: bool = False
    tensorboard: bool = False

"""Folders a stranger might send, and a process that opens each under a limit and tells of it.

``python strangers.py FOLDER`` makes them all, opens each in a child of its own (2 GB more than it
has, 10 s of a processor, every file, socket and process watched), and writes a line of JSON each.
"""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import zipfile
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import midsentence
from midsentence import TextVAE, UserError, assembly, config, directions, evaluation, kept
from midsentence.learning import checkpoint, records
from midsentence.opening import digest
from midsentence.text import store
from midsentence.text.corpus import Corpus, prepare
from midsentence.text.tokenizer import Tokenizer
from midsentence.weights import tensors_of

LINES = ["the cat sat on the mat", "a dog ran in the park", "the bird sang a song"] * 9
SMALL = [
    "latent=2", "encoder.embedding=4", "encoder.hidden=4", "decoder.embedding=4",
    "decoder.hidden=4", "precision=float32",
]  # fmt: skip
HERE = Path(__file__).resolve()
MOST, SECONDS = 2 << 30, 10
FORBIDDEN = re.compile(
    r"socket\.|subprocess\.|os\.(exec|system|posix_spawn|spawn|fork|remove|rename|rmdir|link|symlink"
    r"|chmod|chown|truncate|putenv)|pickle\.|shutil\.|ctypes\.dlopen|urllib|http|ftplib|smtplib"
)
LIBRARIES = (sys.prefix, sys.base_prefix, str(Path(midsentence.__file__).parent), str(HERE))
SYSTEM = "/proc/", "/sys/devices/", "/dev/null"
"""What may be read beside the folder: interpreter, packages, what the kernel says."""

CASES = {}
"""Name -> (what it does to an honest folder, "refused" or "opened", how it is opened, ...)."""


def case(outcome="refused", kind="word", settings=(), sealed=True, door=None):
    def add(change):
        CASES[change.__name__] = (change, outcome, door or opened, kind, settings, sealed)
        return change

    return add


def opened(folder):
    model = TextVAE.from_pretrained(folder, "cpu")
    wrote = model.sample(1, seed=1)
    model.reconstruct(["the cat " + "a" * 60 + "!"])
    return wrote


class Bomb:
    def __reduce__(self):
        return (os.system, ("echo ran > ran",))


def seal(folder):
    there = [name for name in assembly.FILES if (folder / name).is_file()]
    large = [name for name in there if (folder / name).stat().st_size > MOST]
    files = {name: "" if name in large else digest(folder / name) for name in there}
    manifest(folder, {"format": 1, "files": files})


def manifest(folder, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "manifest.json").write_text(text)


def honest(folder, kind="word", settings=()):
    tokenizer = Tokenizer.train(LINES, kind=kind)
    made = config.compose(overrides=[*SMALL, f"tokenizer.kind={kind}", *settings])
    vae = assembly.assemble(made, tokenizer.vocab_size)
    assembly.save(folder, made, tokenizer, vae)


def setting(folder, *lines):
    """Lay ``section.name=value`` over config.toml, unchecked."""
    import tomllib

    import tomli_w

    tree = tomllib.loads((folder / "config.toml").read_text())
    for line in lines:
        path, _, value = line.partition("=")
        *sections, name = path.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = tomllib.loads(f"v = {value}")["v"]
    (folder / "config.toml").write_text(tomli_w.dumps(tree))


def words(folder, change):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    found = change(content)
    path.write_text(json.dumps(content if found is None else found))


def tensors(folder, change):
    held = load_file(folder / "model.safetensors")
    change(held)
    save_file({k: v.contiguous() for k, v in held.items()}, folder / "model.safetensors")


def header(folder, change, body=None):
    """Rewrite the header of the weights; `body` is their bytes, as they are by itself."""
    raw = (folder / "model.safetensors").read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    content = json.loads(raw[8:end])
    text = change(content)
    text = json.dumps(content if text is None else text) if not isinstance(text, str) else text
    written = struct.pack("<Q", len(text)) + text.encode()
    path = folder / "model.safetensors"
    path.write_bytes(written + (raw[end:] if body is None else b""))
    if body is not None:
        os.truncate(path, len(written) + body)


# --- manifests


@case(sealed=False)
def no_manifest(folder):
    (folder / "manifest.json").unlink()


@case(sealed=False)
def manifest_of_deep_json(folder):
    manifest(folder, "[" * 500_000)


@case(sealed=False)
def manifest_with_a_key_twice(folder):
    text = (folder / "manifest.json").read_text()
    manifest(folder, text.replace('"format": 1', '"format": 1, "format": 1'))


@case(sealed=False)
def manifest_of_a_newer_format(folder):
    manifest(folder, {"format": 2, "files": {}})


@case(sealed=False)
def manifest_of_a_format_that_is_a_book(folder):
    manifest(folder, {"format": "x\n" * 100_000, "files": {}})


@case(sealed=False)
def manifest_of_no_files(folder):
    manifest(folder, {"format": 1, "files": {}})


@case(sealed=False)
def manifest_that_leaves_the_folder(folder):
    held = json.loads((folder / "manifest.json").read_text())
    held["files"] = {f"../secret/{k}": v for k, v in held["files"].items()}
    manifest(folder, held)


@case(sealed=False)
def manifest_of_absolute_paths(folder):
    manifest(folder, {"format": 1, "files": {"/etc/passwd": "0" * 64}})


@case(sealed=False)
def manifest_of_one_file_more(folder):
    held = json.loads((folder / "manifest.json").read_text())
    held["files"]["hook.py"] = digest(folder / "config.toml")
    shutil.copy(folder / "config.toml", folder / "hook.py")
    manifest(folder, held)


@case(sealed=False)
def manifest_of_one_file_less(folder):
    held = json.loads((folder / "manifest.json").read_text())
    del held["files"]["tokenizer.json"]
    manifest(folder, held)


@case(sealed=False)
def manifest_whose_digests_are_no_text(folder):
    manifest(folder, {"format": 1, "files": dict.fromkeys(assembly.FILES, 7), "before": [1]})


@case(sealed=False)
def manifest_of_a_gigabyte(folder):
    os.truncate(folder / "manifest.json", 1 << 30)


@case(sealed=False)
def manifest_that_is_a_pipe(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


@case(sealed=False)
def manifest_that_is_endless(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("/dev/zero")


@case(sealed=False)
def manifest_that_is_itself(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("manifest.json")


# --- settings


@case()
def settings_that_are_a_pickle(folder):
    (folder / "config.toml").write_bytes(pickle.dumps(Bomb()))


@case()
def settings_nested_deeply(folder):
    (folder / "config.toml").write_text("latent = " + "[" * 100_000)


@case()
def settings_of_a_long_dotted_key(folder):
    (folder / "config.toml").write_text("labels.shares." + "a." * 100_000 + "a = 1")


@case()
def settings_of_ten_megabytes(folder):
    (folder / "config.toml").write_text("# much\n" * 1_500_000)


@case()
def settings_with_a_number_of_a_million_digits(folder):
    (folder / "config.toml").write_text("latent = " + "9" * 900_000)


@case()
def settings_that_are_a_pipe(folder):
    (folder / "config.toml").unlink()
    os.mkfifo(folder / "config.toml")


SETTINGS = {
    "latent_of_a_billion": ["latent=1000000000"],
    "latent_below_zero": ["latent=-3"],
    "latent_that_is_a_list": ["latent=[1]"],
    "wide_encoder": ["encoder.hidden=1000000"],
    "very_wide_encoder": ["encoder.hidden=1000000000000"],
    "a_million_layers": ["encoder.layers=1000000", "decoder.layers=1000000"],
    "a_billion_layers": ["encoder.layers=1000000000"],
    "a_thousand_layers": ["encoder.layers=1000"],
    "no_layers": ["encoder.layers=0"],
    "minus_layers": ["decoder.layers=-5"],
    "no_heads": ["encoder={kind='transformer', hidden=4, heads=0}"],
    "many_heads": ["encoder={kind='transformer', hidden=4, heads=1000000}"],
    "wide_flow": ["posterior={kind='iaf', width=1000000}"],
    "quite_wide_flow": ["posterior={kind='nsf', width=30000}"],
    "deep_flow": ["posterior={kind='maf', layers=1000000}"],
    "deep_planar_flow": ["posterior={kind='planar', layers=1000000}"],
    "flow_prior_of_a_million": ["prior={kind='flow', layers=1000000, width=64}"],
    "a_million_components": ["prior={kind='mog', components=1000000}"],
    "a_trillion_components": ["prior={kind='mog', components=1000000000000}"],
    "a_million_pseudo_inputs": ["prior={kind='vamp', components=1000000}"],
    "a_full_covariance": ["latent=100000", "posterior={kind='full'}"],
    "an_unknown_kind": ["encoder={kind='__import__'}"],
    "a_kind_that_is_a_list": ["encoder={kind=['lstm']}"],
    "a_class_for_a_setting": ["encoder={kind='lstm', cell='os.system'}"],
    "a_seed_of_thirty_digits": ["seed=999999999999999999999999999999"],
    "endless_refinement": ["refine.steps=1000000000"],
    "label_with_an_escape": ['labels.shares={"\\u001b[2J"=0.5, b=0.5}'],
    "label_of_nan": ["labels.shares={a=nan, b=0.5}"],
    "label_of_minus_one": ["labels.shares={a=-1.0, b=0.5}"],
    "labels_not_in_the_weights": ["labels.shares={a=0.5, b=0.5}"],
    "a_tied_head_of_other_widths": ["head.tied=true", "decoder.embedding=5"],
    "a_dropout_of_nan": ["encoder.dropout=nan"],
    "a_weight_drop_of_one": ["decoder.weight_drop=1.0"],
    "an_unknown_precision": ["precision='float128'"],
}


def _named(name, lines):
    def change(folder):
        setting(folder, *lines)

    change.__name__ = name
    return change


for name, lines in SETTINGS.items():
    case()(_named(name, lines))


@case()
def fifty_thousand_labels(folder):
    shares = ", ".join(f"l{i}=0.00001" for i in range(50_000))
    setting(folder, f"labels.shares={{{shares}}}")


@case("opened")
def sentences_of_a_trillion_words(folder):
    setting(folder, "corpus.max_tokens=1000000000000")

    def never_ends(held):
        held["head.bias"][:] = 0
        held["head.bias"][0] = -1e4  # </s>, the first of what can be written

    tensors(folder, never_ends)


# --- vocabularies


@case()
def words_nested_deeply(folder):
    (folder / "tokenizer.json").write_text("[" * 5_000_000)


@case()
def words_of_a_gigabyte(folder):
    os.truncate(folder / "tokenizer.json", 1 << 30)


@case()
def words_of_many_empty_lists(folder):
    (folder / "tokenizer.json").write_text("[" + "[]," * 10_000_000 + "[]]")


@case()
def words_that_are_a_pickle(folder):
    (folder / "tokenizer.json").write_bytes(pickle.dumps(Bomb()))


@case()
def words_with_a_gap(folder):
    words(folder, lambda c: c["tokenizer"]["model"]["vocab"].update(cat=10**9))


@case()
def words_with_an_id_that_is_true(folder):
    words(folder, lambda c: c["tokenizer"]["model"]["vocab"].update({"<s>": True}))


@case()
def words_without_specials(folder):
    words(folder, lambda c: c["tokenizer"]["model"]["vocab"].update({"<s>": 2, "</s>": 1}))


@case()
def words_of_another_kind(folder):
    words(folder, lambda c: {**c, "kind": "../../word"})


@case()
def words_by_another_model(folder):
    words(folder, lambda c: c["tokenizer"].update(model="os.system"))


@case()
def words_more_than_the_weights(folder):
    def more(content):
        vocab = content["tokenizer"]["model"]["vocab"]
        vocab.update({f"w{i}": len(vocab) + i for i in range(1000)})

    words(folder, more)


@case(kind="bpe")
def merges_of_nothing(folder):
    words(folder, lambda c: c["tokenizer"]["model"]["merges"].append(["q!", "!q"]))


@case(kind="bpe")
def merges_that_are_numbers(folder):
    words(folder, lambda c: c["tokenizer"]["model"].update(merges=[[1, 2], [3]]))


@case(kind="unigram")
def scores_of_nan(folder):
    words(folder, lambda c: c["tokenizer"]["model"]["vocab"][9].__setitem__(1, float("nan")))


@case("opened", kind="bpe")
def cutting_that_never_ends(folder):
    """An expression that would take exponential time: only the vocabulary is read."""
    slow = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    words(folder, lambda c: c["tokenizer"].update(pre_tokenizer=slow | {"invert": False}))


@case("opened", kind="bpe")
def a_normaliser_that_grows(folder):
    grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1_000_000}
    words(folder, lambda c: c["tokenizer"].update(normalizer=grow))


@case("opened")
def words_a_terminal_would_obey(folder):
    def escape(content):
        vocab = content["tokenizer"]["model"]["vocab"]
        for word in [w for w in vocab if not w.startswith("<")]:
            vocab[f"\x1b]0;{word}\x07\n"] = vocab.pop(word)

    words(folder, escape)


# --- weights


@case()
def weights_that_are_a_pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))


@case()
def weights_saved_by_torch(folder):
    torch.save({"a": Bomb()}, folder / "model.safetensors")


@case()
def weights_of_a_header_without_end(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")


@case()
def weights_of_a_giant_header(folder):
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 90 << 20) + b"{" + b" " * (90 << 20))


@case()
def weights_of_a_deep_header(folder):
    header(folder, lambda c: "[" * 1_000_000)


@case()
def weights_of_a_header_with_a_key_twice(folder):
    other = {"head.bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
    header(folder, lambda c: json.dumps(c)[:-1] + ", " + json.dumps(other)[1:])


@case()
def weights_of_a_huge_empty_shape(folder):
    huge = {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}
    header(folder, lambda c: {**c, "more": huge})


@case()
def weights_of_a_shape_that_overflows(folder):
    huge = {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 16]}
    header(folder, lambda c: {**c, "head.bias": huge})


@case()
def weights_that_overlap(folder):
    header(folder, lambda c: {k: {**v, "data_offsets": [0, 16]} for k, v in c.items()})


@case()
def weights_of_a_hundred_gigabytes(folder):
    os.truncate(folder / "model.safetensors", 100 << 30)


@case()
def weights_and_settings_beyond_memory(folder):
    """Sparse, 9 GB, and at one with settings that describe just that."""
    setting(folder, "encoder.embedding=1000000", "decoder.embedding=100000000")
    wide(folder, "encoder.embedding=1000000", "encoder.hidden=500")


@case()
def weights_and_settings_that_just_do_not_fit(folder):
    """1.2 GB: the file is within bounds, it twice in memory is not."""
    wide(folder, "encoder.embedding=1000000", "encoder.hidden=70")


def wide(folder, *lines):
    setting(folder, *lines)
    made = config.load(folder / "config.toml")
    count = Tokenizer.load(folder / "tokenizer.json").vocab_size
    with torch.device("meta"):
        held = tensors_of(assembly.assemble(made, count))
    at, content = 0, {}
    for key, value in held.items():
        size = 4 * value.numel()
        content[key] = {
            "dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + size]
        }  # fmt: skip
        at += size
    header(folder, lambda c: content, at)


@case()
def weights_of_one_tensor_more(folder):
    tensors(folder, lambda held: held.update(more=torch.zeros(3)))


@case()
def weights_of_one_tensor_less(folder):
    tensors(folder, lambda held: held.pop("head.bias"))


@case()
def weights_turned_round(folder):
    tensors(folder, lambda held: held.update({"head.table": held["head.table"].T}))


@case()
def weights_of_nan(folder):
    tensors(folder, lambda held: held["head.bias"].__setitem__(3, float("nan")))


@case()
def weights_of_infinity(folder):
    tensors(folder, lambda held: held["head.bias"].__setitem__(3, float("inf")))


@case("opened")
def weights_of_double_precision(folder):
    tensors(folder, lambda held: held.update({k: v.double() for k, v in held.items()}))


@case()
def weights_that_are_a_device(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


@case("opened")
def weights_that_are_a_link_to_a_file(folder):
    """As in the cache of a hub; the digest says what it has to be."""
    other = folder.parent / f"{folder.name}.blob"
    (folder / "model.safetensors").rename(other)
    (folder / "model.safetensors").symlink_to(other)


@case(sealed=False)
def words_that_are_a_link_to_a_secret(folder):
    secret = folder.parent / "secret.txt"
    secret.write_text("a password")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(secret)


# --- what lies beside them


@case("opened")
def programs_beside_the_model(folder):
    for name in ("conftest.py", "sitecustomize.py", "torch.py", "modeling.py", "__init__.py"):
        (folder / name).write_text("open('ran', 'w').write('ran')")
    for name in ("pytorch_model.bin", "model.pt", "model.pt2", "tokens.npy", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))


def prior(folder, about, change=lambda folder: None):
    from midsentence.fitted import FittedPrior, write
    from midsentence.learning import kinds

    settings = kinds.settings_of("mog", ["components=2"])
    write(folder, FittedPrior(settings, kinds.build(settings, 2)))
    place = folder / "prior"
    text = (place / "about.toml").read_text()
    for old, new in about.items():
        assert old in text, text
        text = text.replace(old, new)
    (place / "about.toml").write_text(text)
    change(place)
    files = {name: digest(place / name) for name in ("about.toml", "tensors.safetensors")}
    manifest(place, {"format": 1, "files": files})


@case("opened")
def a_fitted_prior(folder):
    prior(folder, {})


@case()
def a_fitted_prior_of_a_million(folder):
    prior(folder, {"components = 2": "components = 1000000"})


@case()
def a_fitted_flow_of_great_width(folder):
    prior(folder, {'kind = "mog"': 'kind = "flow"\nwidth = 1000000', "components = 2": ""})


@case()
def a_fitted_diffusion_of_great_width(folder):
    prior(folder, {'kind = "mog"': 'kind = "diffusion"\nwidth = 1000000', "components = 2": ""})


@case()
def a_fitted_prior_of_deep_settings(folder):
    prior(folder, {"components = 2": "components = " + "[" * 100_000})


@case()
def a_fitted_prior_that_is_no_folder(folder):
    (folder / "prior").write_bytes(pickle.dumps(Bomb()))


# --- a run's other folders and files


def checkpoints(folder):
    checkpoint.latest(folder / "checkpoints")
    return []


def corpus(folder):
    held = Corpus.open(folder / "corpus")
    return held.train.text(held.tokenizer, [0])


def a_direction(folder):
    directions.read(folder, "way")
    return directions.names(folder)


def records_and_tables(folder):
    return [str(records.read(folder / "metrics.jsonl")), str(evaluation.evaluations(folder))]


def a_checkpoint(folder, change):
    held = {"x": torch.zeros(3)}
    path = checkpoint.save(folder / "checkpoints", 1, held, {"position": {"step": 1}})
    change(path)
    reseal(path, checkpoint.FILES)


def reseal(folder, names):
    manifest(folder, {"format": 1, "files": {name: digest(folder / name) for name in names}})


@case("opened", door=checkpoints)
def checkpoint_honest(folder):
    a_checkpoint(folder, lambda path: None)


@case(door=checkpoints)
def checkpoint_that_is_a_pickle(folder):
    a_checkpoint(folder, lambda p: torch.save(Bomb(), p / "tensors.safetensors"))


@case(door=checkpoints)
def checkpoint_of_a_deep_state(folder):
    a_checkpoint(folder, lambda p: (p / "state.json").write_text("[" * 900_000))


@case(door=checkpoints)
def checkpoint_of_a_giant_state(folder):
    a_checkpoint(folder, lambda p: os.truncate(p / "state.json", 1 << 28))


@case(door=checkpoints)
def checkpoint_that_leaves_the_folder(folder):
    a_checkpoint(folder, lambda path: None)
    files = dict.fromkeys(("../../../secret", "state.json"), "0" * 64)
    manifest(folder / "checkpoints" / "step-000001", {"format": 1, "files": files})


@case(door=checkpoints)
def checkpoint_that_is_a_pipe(folder):
    a_checkpoint(folder, lambda path: None)
    path = folder / "checkpoints" / "step-000001" / "state.json"
    path.unlink()
    os.mkfifo(path)


def a_corpus(folder, change=lambda meta: None, then=lambda part: None):
    path = folder.parent / f"{folder.name}.txt"
    path.write_text("\n".join(f"{line} {i}" for i, line in enumerate(LINES)))
    prepare(str(path), folder / "corpus", tokenizer_settings={"kind": "word"})
    part = folder / "corpus" / "train"
    meta = json.loads((part / "meta.json").read_text())
    change(meta)
    (part / "meta.json").write_text(json.dumps(meta))
    then(part)
    reseal(part, store.FILES)


@case("opened", door=corpus)
def corpus_honest(folder):
    a_corpus(folder)


@case(door=corpus)
def corpus_of_objects(folder):
    a_corpus(folder, lambda meta: meta.update(dtype="O"))


@case(door=corpus)
def corpus_of_a_trillion(folder):
    a_corpus(folder, lambda meta: meta.update(sentences=10**12, tokens=10**15))


@case(door=corpus)
def corpus_of_less_than_nothing(folder):
    a_corpus(folder, lambda meta: meta.update(sentences=-1, tokens=-8))


@case(door=corpus)
def corpus_of_unknown_words(folder):
    a_corpus(folder, then=lambda p: (p / "tokens.bin").write_bytes(
        b"\xff" * (p / "tokens.bin").stat().st_size))  # fmt: skip


@case(door=corpus)
def corpus_whose_sentences_run_backwards(folder):
    def turn(part):
        raw = (part / "offsets.bin").read_bytes()
        middle = raw[8:-8]
        (part / "offsets.bin").write_bytes(raw[:8] + middle[::-1] + raw[-8:])

    a_corpus(folder, then=turn)


@case(door=corpus)
def corpus_of_a_deep_meta(folder):
    a_corpus(folder, then=lambda part: (part / "meta.json").write_text("[" * 900_000))


@case(door=corpus)
def corpus_of_fifty_gigabytes(folder):
    """Sparse, with sizes that agree, and no manifest whose digests would take their time."""
    a_corpus(folder, lambda meta: meta.update(tokens=25 << 30))
    os.truncate(folder / "corpus" / "train" / "tokens.bin", 50 << 30)
    (folder / "corpus" / "train" / "manifest.json").unlink()


def a_way(folder, held, about=""):
    whole = directions.Direction(torch.ones(2), torch.ones(2), 0.0)
    path = directions.write(folder, "way", whole)
    if held is not None:
        save_file(held, path / "tensors.safetensors")
    with (path / "about.toml").open("a") as file:
        file.write(about)
    reseal(path, kept.FILES)
    return path


@case("opened", door=a_direction)
def direction_honest(folder):
    a_way(folder, None)
    (folder / "directions" / "\x1b[2J").mkdir()


@case(door=a_direction)
def direction_that_is_a_pickle(folder):
    path = a_way(folder, None)
    torch.save(Bomb(), path / "tensors.safetensors")
    reseal(path, kept.FILES)


@case(door=a_direction)
def direction_of_another_size(folder):
    a_way(folder, {"vector": torch.ones(2), "weight": torch.ones(3), "bias": torch.ones(1)})


@case(door=a_direction)
def direction_of_nan(folder):
    a_way(folder, {"vector": torch.ones(2), "weight": torch.ones(2) / 0, "bias": torch.ones(1)})


@case(door=a_direction)
def direction_without_a_bias(folder):
    a_way(folder, {"vector": torch.ones(2), "weight": torch.ones(2), "bias": torch.ones(0)})


@case(door=a_direction)
def direction_of_deep_words(folder):
    a_way(folder, None, "more = " + "[" * 100_000)


BROKEN = {
    "a_pickle": lambda path: path.write_bytes(pickle.dumps(Bomb()) + b"\n"),
    "deep": lambda path: path.write_text("[" * 900_000 + "\n"),
    "a_list": lambda path: path.write_text("[1, 2]\n"),
    "two_gigabytes": lambda path: (path.touch(), os.truncate(path, 2 << 30)),
    "a_pipe": os.mkfifo,
}
for what, write in BROKEN.items():
    for file, short in (("metrics.jsonl", "metrics"), ("evaluation.json", "evaluation")):

        def change(folder, write=write, file=file):
            write(folder / file)

        change.__name__ = f"{short}_that_are_{what}"
        case(door=records_and_tables)(change)


@case("opened", door=records_and_tables)
def records_honest(folder):
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n{"cut')
    (folder / "evaluation.json").write_text('{"test": {"nll": 1.5, "mi": null}}')


@case()
def weights_that_are_a_pt2(folder):
    """An archive as torch.export writes: a zip file with a pickle in it."""
    with zipfile.ZipFile(folder / "model.safetensors", "w") as file:
        file.writestr("archive/archive_format", "pt2")
        file.writestr("archive/models/model.json", "{}")
        file.writestr("archive/data/weights/model.pt", pickle.dumps(Bomb()))


# --- opening them


def harm(folder):
    """What no folder can have done, so that it is known to be seen."""
    os.system("true")
    for outside in ("../secret", folder.parent / "beside", "/etc/hostname"):
        with suppress(OSError):
            Path(outside).read_text()
    (folder.parent / "secret").write_text("x")
    return []


def watched(folder, door):
    """What opening the folder comes to, told as a dictionary."""
    seen, start = [], time.process_time()
    inside = f"{folder}/"

    def allowed(path):
        # A link in the folder may be followed, and only that: its digest says what it must be.
        own = os.path.normpath(folder / path).startswith(inside)
        return own or os.path.realpath(path).startswith((*LIBRARIES, *SYSTEM))

    def hook(event, arguments):
        if FORBIDDEN.match(event):
            seen.append(event)
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path, mode, flags = arguments
            path = os.fsdecode(path)
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else 0
            if (writes and path != os.devnull) or not allowed(path):
                seen.append(f"open {path} {mode}")

    sys.addaudithook(hook)
    os.chdir(folder)
    try:
        wrote = door(folder)
        said, outcome = "", "opened"
        if not all(line.isprintable() for line in wrote):
            said = f"it wrote {wrote!r}"
    except UserError as error:
        said, outcome = str(error), "refused"
    except BaseException:
        said, outcome = traceback.format_exc(), "failed"
    return {
        "outcome": outcome, "said": said, "seen": seen,
        "seconds": round(time.process_time() - start, 2),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "ran": Path("ran").exists(),
    }  # fmt: skip


def in_a_child(folder, door):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # whatever else the machine is doing
        signal.alarm(12 * SECONDS)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + MOST, now + MOST))
        with os.fdopen(write, "w") as file:
            file.write(json.dumps(watched(folder, door)))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"outcome": f"died of {status}", "said": "", "seen": []}


def main(home):
    made = {}
    for name, (change, outcome, door, kind, settings, sealed) in CASES.items():
        folder = home / name
        if (kind, settings) not in made:
            made[kind, settings] = home / f"honest-{len(made)}"
            honest(made[kind, settings], kind, settings)
        shutil.copytree(made[kind, settings], folder)
        change(folder)
        if sealed:
            seal(folder)
        found = {"name": name, "wanted": outcome} | in_a_child(folder, door)
        print(json.dumps(found), flush=True)
        shutil.rmtree(folder)
    honest(home / "watcher")
    print(json.dumps({"name": "the_watcher"} | in_a_child(home / "watcher", harm)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]).resolve())

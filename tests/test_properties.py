"""Laws that hold whatever is given, sought to be broken by hypothesis."""

import shutil
import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from midsentence import UserError, config, writing
from midsentence.learning import checkpoint
from midsentence.text.batches import Budget, by_length, shuffled

settings.register_profile("usual", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("usual")

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200).map(
    lambda held: np.array(held, np.int32)
)
BUDGETS = st.builds(Budget, st.integers(1, 400), st.none() | st.integers(1, 20))


@given(LENGTHS, BUDGETS, st.integers(0, 2**31), st.integers(0, 99), st.integers(1, 250))
def test_an_epoch_has_every_sentence_once(lengths, budget, seed, epoch, size):
    batches = shuffled(lengths, budget, seed, epoch, size=size)
    rows = [batch.tolist() for batch in batches]
    assert sorted(chain(*rows)) == list(range(len(lengths)))
    for batch in rows:
        assert len(batch) <= (budget.sentences or len(lengths))
        assert len(batch) == 1 or len(batch) * (lengths[batch].max() + 1) <= budget.tokens
    # Where a run goes on: the same batches, whichever is asked for first.
    again = shuffled(lengths, budget, seed, epoch, size=size)
    assert [again[i].tolist() for i in reversed(range(len(again)))] == rows[::-1]


@given(LENGTHS, BUDGETS)
def test_measuring_sees_every_sentence_once(lengths, budget):
    rows = [batch.tolist() for batch in by_length(lengths, budget)]
    assert sorted(chain(*rows)) == list(range(len(lengths)))


VALUES = {
    "seed": st.integers(0, 2**40),
    "latent": st.integers(1, 999),
    "corpus.source": st.text(min_size=1) | st.lists(st.text(min_size=1), min_size=1),
    "corpus.text_field": st.text(),
    "corpus.on_bad": st.sampled_from(["error", "skip", "replace"]),
    "corpus.valid_fraction": st.floats(0, 1),
    "tokenizer.vocab_size": st.integers(5, 10**6),
    "encoder.hidden": st.integers(1, 9999),
    "encoder.dropout": st.floats(0, 0.99),
    "training.epochs": st.floats(1e-9, 1e9),
    "training.max_steps": st.integers(1, 10**9),
    "labels.shares": st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P"]), max_size=20), st.floats(0, 1)
    ),
    "beta.kind": st.sampled_from(["constant", "linear", "cyclical"]),
    "prior.kind": st.sampled_from(["normal", "mog", "vamp"]),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_settings_are_saved_and_loaded_as_they_were(chosen):
    tree = {}
    for name, value in chosen.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    made = config.resolve(tree)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        made.save(path)
        assert config.load(path) == made
    for name, value in chosen.items():
        held = made.model_dump()
        for part in name.split("."):
            held = held[part]
        assert held == value


class Checkpoints(RuleBasedStateMachine):
    """Saving, failing, damage and loading in any order, beside what should be there."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp()) / "checkpoints"
        self.step, self.there = 0, {}  # step -> (value, whole)

    def _save(self, value):
        self.step += 1
        checkpoint.save(self.folder, self.step, {"x": torch.tensor([value])}, {"value": value})

    @rule(value=st.floats(-9, 9, width=32))
    def save(self, value):
        self._save(value)
        self.there[self.step] = value, True
        self.there = dict(sorted(self.there.items())[-checkpoint.KEPT :])

    @rule(value=st.floats(-9, 9, width=32), name=st.sampled_from(["flush", "write_manifest"]))
    def fail(self, value, name):
        whole = getattr(writing, name)
        setattr(writing, name, self._full)
        try:
            self._save(value)
            raise AssertionError("it should have failed")
        except OSError:
            pass
        finally:
            setattr(writing, name, whole)

    @staticmethod
    def _full(*_):
        raise OSError(28, "No space left on device")

    @rule(name=st.sampled_from([*checkpoint.FILES, "manifest.json"]), empty=st.booleans())
    def damage(self, name, empty):
        if not self.there:
            return
        newest = max(self.there)
        path = self.folder / f"step-{newest:06d}" / name
        path.write_bytes(b"" if empty else path.read_bytes()[:-1])
        self.there[newest] = self.there[newest][0], False

    @rule()
    def forget(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.there = {}

    @invariant()
    def the_newest_whole_one_is_found(self):
        if not hasattr(self, "folder"):
            return
        whole = [value for value, whole in self.there.values() if whole]
        try:
            found = checkpoint.latest(self.folder)
        except UserError:
            assert self.there and not whole
            return
        if found is None:
            assert not self.there
            return
        tensors, state = found
        assert tensors["x"].item() == state["value"] == whole[-1]
        assert not list(self.folder.glob(".*"))

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder.parent, ignore_errors=True)


TestCheckpoints = Checkpoints.TestCase
TestCheckpoints.settings = settings(deadline=None, max_examples=15, stateful_step_count=10)

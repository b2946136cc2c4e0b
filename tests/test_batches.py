"""Batches: every sentence once, under the budget, in an order that a seed fixes."""

import numpy as np
import pytest

from midsentence.text.batches import Budget, Shards, by_length, collate, shuffled, usual
from midsentence.text.store import Lengths
from midsentence.text.tokenizer import BOS, EOS, PAD

LENGTHS = np.random.default_rng(0).integers(1, 40, 5000)


@pytest.mark.parametrize("budget", [Budget(512), Budget(10**6, 32), Budget(300, 8)])
def test_every_sentence_once_and_under_the_budget(budget):
    for batches in (shuffled(LENGTHS, budget, 1, 0), by_length(LENGTHS, budget)):
        assert sorted(np.concatenate(list(batches))) == list(range(5000))
        for rows in batches:
            assert len(rows) * (LENGTHS[rows].max() + 1) <= budget.tokens
            assert budget.sentences is None or len(rows) <= budget.sentences


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(list(shuffled(LENGTHS, Budget(512), seed, epoch))).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_little_is_padding():
    batches = shuffled(LENGTHS, Budget(512), 0, 0)
    held = sum(len(rows) * (LENGTHS[rows].max() + 1) for rows in batches)
    assert (LENGTHS + 1).sum() / held > 0.93


def test_one_sentence_over_the_budget_gets_its_own_batch():
    batches = shuffled(np.array([5, 5, 100]), Budget(20), 0, 0)
    assert sorted(sorted(rows.tolist()) for rows in batches) == [[0, 1], [2]]


def test_the_usual_budget_holds_32_sentences_of_mean_length():
    assert usual(np.array([10, 20])) == 1024
    assert usual(np.array([99, 101])) == 32 * 101


def test_collate_lays_out_inputs_targets_and_mask():
    held = collate([[7, 8], [9]], [1, -1])
    assert held.tokens.tolist() == [[BOS, 7, 8, EOS], [BOS, 9, EOS, PAD]]
    assert held.inputs.tolist() == [[BOS, 7, 8], [BOS, 9, EOS]]
    assert held.targets.tolist() == [[7, 8, EOS], [9, EOS, PAD]]
    assert held.lengths.tolist() == [3, 2]
    assert held.labels.tolist() == [1, -1]
    assert len(held) == 2


def test_a_large_corpus_is_gone_through_shard_by_shard():
    """As in one piece: every sentence once, within the budget, another order each epoch."""
    budget = Budget(512)
    for size in (64, 300, 1999):
        batches = shuffled(LENGTHS, budget, 1, 0, size=size)
        assert isinstance(batches, Shards) and len(batches) == len(list(batches))
        assert sorted(np.concatenate(list(batches)).tolist()) == list(range(len(LENGTHS)))
        for rows in batches:
            assert len({row // size for row in rows.tolist()}) == 1
            width = int(LENGTHS[rows].max()) + 1
            assert len(rows) == 1 or len(rows) * width <= budget.tokens
        again = shuffled(LENGTHS, budget, 1, 0, size=size)
        middle = len(again) // 2  # a run that goes on asks for one in the middle first
        assert again[middle].tolist() == batches[middle].tolist()
        other = shuffled(LENGTHS, budget, 1, 1, size=size)
        assert np.concatenate(list(other)).tolist() != np.concatenate(list(batches)).tolist()
        assert {tuple(b) for b in other} != {tuple(b) for b in batches}
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_batches_near_one_are_of_its_shard():
    lengths = np.random.default_rng(0).integers(1, 20, 1000)
    batches = shuffled(lengths, Budget(100), 0, 0, size=300)
    shards = np.array([batches[i].min() // 300 for i in range(len(batches))])
    for index in 0, 40, len(batches) - 1:
        near = {batches.near(index, number) for number in range(1000)}
        assert near == set(np.flatnonzero(shards == shards[index]))
    few = shuffled(lengths, Budget(100), 0, 0)
    assert {few.near(3, number) for number in range(1000)} == set(range(len(few)))


def test_up_to_a_million_sentences_are_one_shard():
    whole = shuffled(LENGTHS, Budget(512), 1, 0)
    assert not isinstance(whole, Shards)
    assert [b.tolist() for b in whole] == [
        b.tolist() for b in shuffled(LENGTHS, Budget(512), 1, 0, size=len(LENGTHS))
    ]


def test_lengths_that_are_not_held_are_as_an_array():
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    found, array = Lengths(offsets), np.asarray(LENGTHS)
    assert len(found) == len(array) and found.sum() == array.sum()
    assert found.mean() == pytest.approx(array.mean())
    rows = np.array([3, 0, len(array) - 1, 3])
    for place in (slice(None), slice(5, 9), slice(9, 5), slice(3, 20, 4), rows):
        assert np.array_equal(found[place], array[place])
    assert np.array_equal(np.asarray(found), array)
    assert [b.tolist() for b in by_length(found, Budget(512))] == [
        b.tolist() for b in by_length(array, Budget(512))
    ]

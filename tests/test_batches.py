"""Batches: every sentence once, under the budget, in an order that a seed fixes."""

import numpy as np
import pytest

from midsentence.text.batches import Budget, by_length, collate, shuffled, usual
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

#!/bin/sh
# The grammar with a known truth: a VAE, the language model, and the four GRU and Transformer
# pairings, then all of them against the entropy. About 35 minutes on two cores. SET: a setting for all
# (the table of docs/results.md: SET=head.sampled_words=0).
set -eu
BIN=${BIN:-.venv/bin}
. "${0%/*}/once.sh"
train() {
    run=runs/grammar-$1; minutes=$2; shift 2
    once "$run" builtin:grammar --max-minutes "$minutes" ${SET:+--set "$SET"} "$@"
}
train vae 14 --set objective.free_bits=0.1
train lm 5 --recipe lm
train gru-gru 2 --set encoder.kind=gru --set decoder.kind=gru
train gru-transformer 2 --set encoder.kind=gru --set decoder.kind=transformer
train transformer-gru 2 --set encoder.kind=transformer --set decoder.kind=gru
train transformer-transformer 2 --set encoder.kind=transformer --set decoder.kind=transformer
"$BIN/python" benchmarks/grammar.py runs/grammar-vae runs/grammar-lm
"$BIN/python" benchmarks/grammar.py --sentences 300 runs/grammar-gru-gru runs/grammar-gru-transformer runs/grammar-transformer-gru runs/grammar-transformer-transformer
"$BIN/midsentence" evaluate runs/grammar-vae --samples 50 --quality  # MIG and DCI of the known factors

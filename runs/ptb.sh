#!/bin/sh
# Penn Treebank at the published sizes: runs/ptb.sh FOLDER (with train.txt, valid.txt, test.txt).
# The VAE under the aggregate posterior and under N(0, I), with SAMPLES (500) importance samples on the
# test set, and the language model of the same sizes. Two cores that multiply bf16 train the VAE for 76
# minutes and need 4 for each 100 samples; two without for (reckoned by its epochs) four and a half hours,
# and 15 minutes. A stopped training is gone on with, an ended one kept.
set -eu
BIN=${BIN:-.venv/bin}
. "${0%/*}/once.sh"
train() {
    run=runs/$1; shift
    once "$run" "$DATA/train.txt" --valid "$DATA/valid.txt" --test "$DATA/test.txt" "$@"
}
DATA=$1
train ptb --recipe ptb
train ptb-lm --recipe ptb --set latent=0 --set encoder.kind=none
[ -e runs/ptb/prior ] || "$BIN/midsentence" fit-prior runs/ptb --kind aggregate
"$BIN/midsentence" evaluate runs/ptb --samples "${SAMPLES:-500}" --devices 2
"$BIN/midsentence" evaluate runs/ptb --samples "${SAMPLES:-500}" --devices 2 --own-prior
"$BIN/midsentence" evaluate runs/ptb-lm
"$BIN/midsentence" compare runs/ptb runs/ptb-lm --markdown

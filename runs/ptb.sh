#!/bin/sh
# Penn Treebank at the published sizes: runs/ptb.sh FOLDER (with train.txt, valid.txt, test.txt).
# The VAE and the language model of the same sizes, IW-500 on the test set. About an hour and a half.
set -eu
BIN=${BIN:-.venv/bin}
train() {
    run=runs/$1; shift
    [ -e "$run/evaluation.json" ] || "$BIN/midsentence" train "$DATA/train.txt" \
        --valid "$DATA/valid.txt" --test "$DATA/test.txt" --out "$run" "$@"
}
DATA=$1
train ptb --recipe ptb
train ptb-lm --recipe ptb --set latent=0 --set encoder.kind=none
"$BIN/midsentence" evaluate runs/ptb --samples 500
"$BIN/midsentence" evaluate runs/ptb-lm
"$BIN/midsentence" compare runs/ptb runs/ptb-lm --markdown

#!/bin/sh
# The grammar with a known truth: a VAE, the language model, and the four GRU and Transformer
# pairings, then all of them against the entropy. About 25 minutes on two cores.
set -eu
BIN=${BIN:-.venv/bin}
MINUTES=${MINUTES:-4}
train() {
    run=runs/grammar-$1; shift
    [ -e "$run/evaluation.json" ] || "$BIN/midsentence" train builtin:grammar --out "$run" \
        --set training.max_minutes="$MINUTES" "$@"
}
train vae
train lm --recipe lm
train gru-gru --set encoder.kind=gru --set decoder.kind=gru
train gru-transformer --set encoder.kind=gru --set decoder.kind=transformer
train transformer-gru --set encoder.kind=transformer --set decoder.kind=gru
train transformer-transformer --set encoder.kind=transformer --set decoder.kind=transformer
"$BIN/python" benchmarks/grammar.py runs/grammar-vae runs/grammar-lm runs/grammar-gru-gru \
    runs/grammar-gru-transformer runs/grammar-transformer-gru runs/grammar-transformer-transformer

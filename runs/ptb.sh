#!/bin/sh
# Penn Treebank: runs/ptb.sh FOLDER (with train.txt, valid.txt, test.txt), at the published sizes, or
# larger with RECIPE=ptb-large. The VAE under a fitted prior and under its own, with SAMPLES (500)
# importance samples on the test set, by WORDS of the vocabulary a position (0: all, exact; 512 is an
# estimate in a fraction of the time), and the language model of the same decoder. One core that multiplies
# bf16 trains ptb for two hours, two of them ptb-large, and two need for each 100 samples of ptb 4 minutes
# by all words; two without bf16 (reckoned by its epochs) over three hours for ptb, and 15 minutes. A stopped
# training is gone on with, an ended one kept.
set -eu
BIN=${BIN:-.venv/bin}
. "${0%/*}/once.sh"
train() {
    run=runs/$1; shift
    once "$run" "$DATA/train.txt" --valid "$DATA/valid.txt" --test "$DATA/test.txt" "$@"
}
DATA=$1
NAME=${RECIPE:-ptb}
case $NAME in # with much information the sentences' own posteriors are too narrow for those of others
    ptb-large) prior="--kind mog --set components=2048" ;;
    *) prior="--kind aggregate" ;;
esac
measure() { "$BIN/midsentence" evaluate "$@" --samples "${SAMPLES:-500}" --sampled-words "${WORDS:-0}" --devices 2; }
train "$NAME" --recipe "$NAME"
train "$NAME-lm" --recipe "$NAME" --set latent=0 --set encoder.kind=none
[ -e "runs/$NAME/prior" ] || "$BIN/midsentence" fit-prior "runs/$NAME" $prior
measure "runs/$NAME"
measure "runs/$NAME" --own-prior
"$BIN/midsentence" evaluate "runs/$NAME-lm"
"$BIN/midsentence" compare "runs/$NAME" "runs/$NAME-lm" --markdown

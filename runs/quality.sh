#!/bin/sh
# How good samples and latents are on a corpus: runs/quality.sh NAME CORPUS [option of train for its text ...]
#   runs/quality.sh ptb PTB/train.txt --valid PTB/valid.txt --test PTB/test.txt
# Trains RECIPE (default) and the language model of its decoder for MINUTES (6) each, fits a prior to
# the VAE's posterior, and writes results/quality-NAME.md: real text, the VAE under the prior it was
# trained with and under the fitted one, the language model. Half an hour or so on two cores; stop it
# and start it again as you like.
set -eu
name=$1; shift
BIN=${BIN:-.venv/bin} MINUTES=${MINUTES:-6} RECIPE=${RECIPE:-default}
home=runs/quality/$name out=results/quality-$name.md
asked="MINUTES=$MINUTES RECIPE=$RECIPE runs/quality.sh $name $*"
. "${0%/*}/once.sh"
train() {
    run=$home/$1; shift
    once "$run" "$@" --recipe "$RECIPE" --max-minutes "$MINUTES" --set labels.condition=false
}
train vae "$@"
train lm "$@" --set latent=0 --set encoder.kind=none
[ -e "$home/vae/prior" ] || "$BIN/midsentence" fit-prior "$home/vae"
mkdir -p results
{
    echo "# Samples and latents: $name"
    echo
    echo "Recipe \`$RECIPE\` and the language model of the same decoder, at most $MINUTES minutes of training"
    echo "each, one seed. Made by \`$asked\`."
    echo
    "$BIN/python" benchmarks/samples.py "$home/vae" "$home/lm" --repeats 1 --steps 500 --lm-steps 1500
} > "$out.part"
mv "$out.part" "$out"

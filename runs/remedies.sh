#!/bin/sh
# Every recipe on one corpus at equal budget: runs/remedies.sh FOLDER [OPTION...] (FOLDER has train.txt,
# valid.txt, test.txt; options are those of benchmarks/remedies.py, --text-field 1 for lines with a label).
# Writes docs/remedies.md and its picture. Stop it and start it again as you like. At 6 minutes a run,
# two runs at a time, about two and a half hours. The committed page was made by the command that it quotes,
# with other settings: --page results/remedies.md keeps it.
set -eu
BIN=${BIN:-.venv/bin}
DATA=$1; shift
exec "$BIN/python" benchmarks/remedies.py "$DATA/train.txt" --valid "$DATA/valid.txt" \
    --test "$DATA/test.txt" --minutes "${MINUTES:-6}" --jobs 2 --threads 1 --seeds 3 \
    --main lm plain default free-bits bn-vae pretrain "$@"

#!/bin/sh
# The published Penn Treebank table, made again: runs/reproduce.sh PTB_FOLDER [ROW...] (the folder has
# train.txt, valid.txt, test.txt; rows: lm plain monotone cyclical aggressive ae-free-bits, all by
# default). Writes results/ptb.md and results/ptb.json. Stop it and start it again as you like. A row
# takes hours on two cores.
set -eu
BIN=${BIN:-.venv/bin}
exec "$BIN/python" benchmarks/reproduce.py "$@"

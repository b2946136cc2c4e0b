#!/bin/sh
# Train on the embedded corpus, then look at what came of it. About five minutes on two cores.
set -eu
BIN=${BIN:-.venv/bin}
RUN=runs/demo
if [ -e "$RUN/report.html" ]; then
    echo "$RUN is there from before: showing it. Remove the folder to train afresh."
elif [ -e "$RUN/config.toml" ]; then
    "$BIN/midsentence" train builtin:icd10 --out "$RUN" --resume
else
    "$BIN/midsentence" train builtin:icd10 --out "$RUN" --max-minutes 3.5
fi

echo; echo "== reconstructions (greedy, from the posterior mean)"
cat <<LINES | "$BIN/midsentence" reconstruct "$RUN" - --jsonl
Fracture of upper end of right tibia
Benign neoplasm of left breast
Poisoning by other antibiotics, accidental, initial encounter
LINES

echo; echo "== ten samples from the prior"
"$BIN/midsentence" sample "$RUN" -n 10 --seed 1

echo; echo "== an interpolation"
"$BIN/midsentence" interpolate "$RUN" "Fracture of upper end of right tibia" "Benign neoplasm of left breast" --steps 8

echo; echo "== what z carries (1,000 held-out phrases, 50 importance samples)"
"$BIN/midsentence" compare "$RUN"
echo; echo "== what the doctor says"
"$BIN/midsentence" doctor "$RUN"
echo; echo "The report: $RUN/report.html"

# For the scripts of this folder: once RUN SOURCE [OPTION of train...] keeps a training that ended, goes
# on with one that was stopped, and begins one that is not there.
once() {
    run=$1; shift
    if [ -e "$run/report.html" ]; then return; fi
    if [ -e "$run/config.toml" ]; then "$BIN/midsentence" train "$1" --out "$run" --resume; return; fi
    "$BIN/midsentence" train "$@" --out "$run"
}

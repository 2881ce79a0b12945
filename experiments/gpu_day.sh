#!/usr/bin/env bash
# Everything that wants a GPU, in one command: tests, benches, and a study on a model trained from scratch.
set -uo pipefail

usage() {
    cat <<'HELP'
experiments/gpu_day.sh [RESULTS] [--wheels DIR] [--only PART,…] [--python PYTHON] [--dry]

Runs what needs a GPU, on any machine with one, within 25 minutes, and writes tables (CSV) with the GPU's name in their
names and in a column into the folder RESULTS (default: experiments/bench/gpu). It needs bash, coreutils and a Python
(3.11 or newer) with torch; it downloads nothing.

  part       at most  what
  tests        5 min  pytest -m gpu: draws and log-probabilities on the GPU; vLLM, reward model and two iterations there
  training     5 min  a training step at 1B and 3B random weights: ours, a row per response, TRL where it is installed
  sampling     3 min  tokens/s at 1B: ours, generate, vLLM where it is installed
  retrieval    2 min  passages encoded, questions searched; FAISS on the GPU where it is installed
  study        9 min  a model of 33M parameters trained from scratch, and Figure 3a's study on it

  --wheels DIR     what is missing is installed from this folder into an environment of its own; torch stays as it is
  --only PART,…    these parts, such as --only tests,sampling: for machines whose commands are limited to ten minutes
  --python PYTHON  default: python3
  --dry            the smallest sizes, in minutes on a CPU, to see that it runs to its end

A part that fails or is out of time leaves the rows that it has written, and the others run. What is not installed is
skipped by name. A summary comes last. Exit code: 0 if all went well, 1 if a part failed, 2 for a wrong call.

The wheels, collected on a machine with a network (here for Python 3.12; torch and what comes with it is the GPU
machine's own; without --no-deps a second torch would come along):

  python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -d wheels bm25s httpx2 httpcore2 truststore ir-measures PyStemmer rapidfuzz pytrec-eval-terrier

and of the others that irlens needs those that the machine lacks: accelerate filelock huggingface-hub matplotlib pandas
pyarrow regex rich scipy sentence-transformers typer pytest. Where a wheel needs another, this script names what is not
there. Of trl, datasets, vllm, faiss-gpu, peft and bitsandbytes it installs those that the folder has, with their needs
from the same folder.
HELP
}

wrong() {
    echo "gpu_day: $1; see --help" >&2
    exit 2
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
known="tests training sampling retrieval study"
results="" wheels="" only="" python=python3 dry=""
while (($#)); do
    case "$1" in
    --help | -h) usage && exit 0 ;;
    --dry) dry=--dry ;;
    --wheels | --only | --python)
        (($# > 1)) || wrong "$1 needs a value"
        declare "${1#--}=$2"
        shift
        ;;
    -*) wrong "unknown option $1" ;;
    *)
        [[ -z $results ]] || wrong "two folders for results: $results and $1"
        results="$1"
        ;;
    esac
    shift
done
parts="${only//,/ }"
parts="${parts:-$known}"
for part in $parts; do
    [[ " $known " == *" $part "* ]] || wrong "--only $part: no such part; known: ${known// /, }"
done
command -v "$python" >/dev/null || wrong "--python $python: no such command"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || wrong "--python $python: older than Python 3.11"
results="${results:-$here/experiments/bench/gpu}"
mkdir -p "$results" 2>/dev/null && [[ -w $results ]] || wrong "$results: cannot be written"
results="$(cd "$results" && pwd)"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
began=$SECONDS
found="$("$python" "$here/experiments/bench/gpu_environment.py" --venv "$work/venv" ${wheels:+--wheels "$wheels"})" || exit 2
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
device="$("$found" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")')" || exit 2
[[ $device != CPU || -n $dry ]] || wrong "no GPU is seen by torch; --dry runs everything in the smallest sizes on a CPU"
echo "gpu_day: $device, $found, results in $results"

limit() {
    case "$1" in
    tests) echo 300 ;;
    training) echo 300 ;;
    sampling) echo 180 ;;
    retrieval) echo 120 ;;
    study) echo 540 ;;
    esac
}

summary="$results/summary-$(tr -cs 'A-Za-z0-9\n' '-' <<<"$device" | sed 's/-$//').csv"
[[ -s $summary ]] || echo "part,outcome,seconds,limit,device,day" >"$summary"
failed=0 table=""
for part in $parts; do
    seconds="$(limit "$part")"
    echo "== $part (at most $seconds s)"
    start=$SECONDS
    timeout --kill-after=20 "$seconds" "$found" "$here/experiments/bench/gpu_$part.py" --out "$results" \
        --seconds "$((seconds - 20))" $dry 2>&1 | tee "$work/$part.log"
    code="${PIPESTATUS[0]}" spent=$((SECONDS - start))
    case "$code" in
    0) outcome=done ;;
    124 | 137) outcome="out of time" ;;
    *) outcome="failed ($code)" ;;
    esac
    [[ $outcome == done ]] || failed=1
    echo "$part,$outcome,$spent,$seconds,\"$device\",$(date +%F)" >>"$summary"
    table+="$(printf '%-10s %-14s %4d s' "$part" "$outcome" "$spent")"$'\n'
    table+="$(grep -h '^skipped:' "$work/$part.log" | sed 's/^/           /')"$'\n'
done
echo "== summary, $device, $((SECONDS - began)) s"
sed '/^[[:space:]]*$/d' <<<"$table"
exit "$failed"

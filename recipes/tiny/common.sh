# Sourced by the scripts beside it, which then run in the repository's root.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}" # short waits between threads: see docs/log.md

eval_world() { # model result options...
  # bfloat16, in which the weights are stored: twice as fast on a CPU that multiplies it
  janus-r1 eval world --model "$1" --out "$2" --dtype bfloat16 --max-batch 128 "${@:3}"
}

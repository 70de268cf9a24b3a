# Sourced by the scripts beside it, which then run in the repository's root.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}" # short waits between threads: see docs/log.md

DEVICE="${DEVICE:-cpu}" # of what is measured; training takes a GPU where there is one

evaluate() { # benchmark model result options...
  # bfloat16, in which the weights are stored: twice as fast on a CPU that multiplies it
  janus-r1 eval "$1" --model "$2" --out "$3" --dtype bfloat16 --device "$DEVICE" --max-batch 128 "${@:4}"
}
eval_world() { # model result options...
  evaluate world "$@"
}

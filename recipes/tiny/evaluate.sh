#!/usr/bin/env bash
# Every committed result of the tiny models: results/*.json and docs/results.md; about ten minutes on two cores.
# bfloat16, in which the weights are stored: twice as fast on a CPU that multiplies it.
set -eu
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}"
mkdir -p results
measure() { # model split options...
  janus-r1 eval world --model "$1" --split "$2" --rounds 1,2,3,4 --dtype bfloat16 --max-batch 128 \
    --out "results/$1-$2.json" "${@:3}"
}
janus-r1 eval tokenizer --model tiny-base --json > results/tokenizer.json
measure tiny-sft test # with the controls at equal cost: best-of-N, blind redrawing, the oracle
for model in tiny-base tiny-sft; do
  for split in held_out dense; do measure "$model" "$split" --no-controls; done
done
measure tiny-base test --no-controls
python -m janus_r1.eval.report results/tiny-{base,sft}-{test,held_out,dense}.json > docs/results.md

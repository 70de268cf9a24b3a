#!/usr/bin/env bash
# Every committed result of the tiny models: results/tiny-*.json and docs/results.md.
# bfloat16, in which the weights are stored: twice as fast on a CPU that multiplies it.
set -eu
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}"
mkdir -p results
janus-r1 eval tokenizer --model tiny-base --json > results/tokenizer.json
for model in tiny-sft tiny-base; do
  for split in test dense held_out; do
    janus-r1 eval world --model "$model" --split "$split" --rounds 1,2,3,4 --dtype bfloat16 --max-batch 128 \
      --out "results/$model-$split.json"
  done
done
python -m janus_r1.eval.report results/tiny-{base,sft}-{test,held_out,dense}.json > docs/results.md

#!/usr/bin/env bash
# Every committed result of the tiny models: results/*.json and docs/results.md; about ten minutes on two cores.
. "$(dirname "$0")/common.sh"
mkdir -p results

measure() { # model split options...
  eval_world "$1" "results/$1-$2.json" --split "$2" --rounds 1,2,3,4 "${@:3}"
}

janus-r1 eval tokenizer --model tiny-base --json > results/tokenizer.json
measure tiny-sft test # with the controls at equal cost: best-of-N, blind redrawing, the oracle
for model in tiny-base tiny-sft; do
  for split in held_out dense; do measure "$model" "$split" --no-controls; done
done
measure tiny-base test --no-controls
python -m janus_r1.eval.report results/tiny-{base,sft}-{test,held_out,dense}.json > docs/results.md

#!/usr/bin/env bash
# SEEDS="0 1 2" studies/seeds.sh
# The paper's claims with several seeds: rl.yaml whole, once a seed, beside the SFT model that all begin from (whose seeds
# differ in sampling alone), on test prompts, held-out pairs and dense prompts.
# Writes results/seeds/*/*.json and docs/seeds.md; run it again after an interruption and it goes on.
STUDY=seeds STEPS="${STEPS:-300}" # rl.yaml's own
. "$(dirname "$0")/study.sh"
splits="test held_out dense"

measure() { # variant seed model
  for split in $splits; do
    local result="$results/$split/$1-$2.json"
    mkdir -p "$results/$split"
    [ -e "$result" ] || eval_world "$3" "$result" --split "$split" --seed "$2" --rounds 1,2,3 --no-controls \
      --json > /dev/null
  done
}
train() { # run
  [ -e "$1/model" ] || janus-r1 train rl --config shapes/rl --resume --run.out "$1" --run.steps "$STEPS" \
    --run.seed "$seed" --run.threads "$THREADS"
}

for seed in $SEEDS; do
  run="$runs/r1-$seed"
  if [ "$seed" = 0 ]; then run=runs/tiny/rl; fi # which train.sh has trained
  train "$run"
  measure sft "$seed" runs/tiny/verdicts/model
  measure r1 "$seed" "$run/model"
done
for split in $splits; do
  python studies/study.py "$results/$split"/*.json --title "Reinforcement learning, $split" --baseline sft
done > "docs/$STUDY.md.tmp"
mv "docs/$STUDY.md.tmp" "docs/$STUDY.md"

#!/usr/bin/env bash
# SFT_STEPS=1000 STEPS=60 SEEDS="0 1 2" recipes/tiny/edits.sh
# What an editor owes to where it begins (base or R1), to reinforcement learning, and to how that weighs following the
# instruction against preserving the rest; every run with and without introspection, in shorter runs than the recipes'.
# Writes results/edits/*.json and docs/edits.md; run it again after an interruption and it goes on.
STUDY=edits ROUNDS=1,3
. "$(dirname "$0")/study.sh"
SFT_STEPS="${SFT_STEPS:-1000}"
base="${BASE:-runs/tiny/binding/model}"

measure() { # variant seed model
  local result="$results/$1-$2.json"
  ! chosen "$1" || [ -e "$result" ] ||
    evaluate edit "$3" "$result" --seed "$2" --rounds "$ROUNDS" --no-baselines --json > /dev/null
}
sft() { # variant options...
  # shellcheck disable=SC2086
  [ -e "$runs/$1-$seed/model" ] || janus-r1 train sft --config recipes/tiny/editing.yaml --resume \
    --run.out "$runs/$1-$seed" --run.seed "$seed" --run.steps "$SFT_STEPS" --run.threads "$THREADS" $TRAIN "${@:2}"
  measure "$1" "$seed" "$runs/$1-$seed/model"
}
rl() { # variant its-sft options...
  trial "$1" "$seed" rl --config recipes/tiny/edit_rl.yaml --eval_every 0 --model "$runs/$2-$seed/model" "${@:3}"
}

for seed in $SEEDS; do
  sft sft-from-r1
  sft sft-from-base --model "$base" --candidates runs/tiny/candidates --own_drafts runs/tiny/candidates
  rl rl-from-r1 sft-from-r1
  rl rl-from-base sft-from-base
  rl rl-official-weights sft-from-r1 --rewards "[{kind: world, follow_weight: 1, preserve_weight: 0.25}]"
  rl rl-three-rounds sft-from-r1 --rounds 3
done
report --title "Editing" --baseline sft-from-r1

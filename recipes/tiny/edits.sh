#!/usr/bin/env bash
# SFT_STEPS=1000 STEPS=60 SEEDS="0 1 2" recipes/tiny/edits.sh
# What reinforcement learning makes of an editor, by how its reward weighs following the instruction against preserving
# the rest and by its rounds; and what an editor owes to where it begins (base or R1). Every model is measured with and
# without introspection. Runs are shorter than the recipes'.
# Writes results/edits/*.json and docs/edits.md; run it again after an interruption and it goes on.
STUDY=edits ROUNDS=1,3
. "$(dirname "$0")/study.sh"
SFT_STEPS="${SFT_STEPS:-1000}"
base="${BASE:-runs/tiny/binding/model}"
editor="${EDITOR_MODEL:-runs/tiny/united/model}" # what reinforcement learning of united_rl.yaml starts from

measure() { # variant seed model
  local result="$results/$1-$2.json"
  ! chosen "$1" || [ -e "$result" ] ||
    evaluate edit "$3" "$result" --seed "$2" --rounds "$ROUNDS" --no-baselines --json > /dev/null
}
sft() { # variant options...
  # shellcheck disable=SC2086
  ! chosen "$1" || [ -e "$runs/$1-$seed/model" ] || janus-r1 train sft --config recipes/tiny/editing.yaml --resume \
    --run.out "$runs/$1-$seed" --run.seed "$seed" --run.steps "$SFT_STEPS" --run.threads "$THREADS" $TRAIN "${@:2}"
  measure "$1" "$seed" "$runs/$1-$seed/model"
}
rl() { # variant model options...
  trial "$1" "$seed" rl --config recipes/tiny/united_rl.yaml --eval_every 0 --task edit --rounds 1 --model "$2" "${@:3}"
}

for seed in $SEEDS; do
  measure before "$seed" "$editor"
  rl rl-joint "$editor"
  rl rl-paper-weights "$editor" --rewards "[{kind: world}]"
  rl rl-official-weights "$editor" --rewards "[{kind: world, follow_weight: 1, preserve_weight: 0.25}]"
  rl rl-two-rounds "$editor" --rounds 2
  sft sft-from-r1
  sft sft-from-base --model "$base" --candidates runs/tiny/candidates --own_drafts runs/tiny/candidates
  rl rl-from-r1 "$runs/sft-from-r1-$seed/model"
  rl rl-from-base "$runs/sft-from-base-$seed/model"
done
report --title "Editing" --baseline before

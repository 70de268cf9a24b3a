#!/usr/bin/env bash
# SFT_STEPS=800 STEPS=60 SEEDS="0 1 2" studies/edits.sh
# What an editor owes to where it begins (base or R1), to reinforcement learning, and to how its reward weighs following
# the instruction against preserving the rest: of young editors and of one that is well taught and redraws. Every model
# is measured with and without introspection. Runs are shorter than the recipes'.
# Writes results/edits/*.json and docs/edits.md; run it again after an interruption and it goes on.
STUDY=edits ROUNDS=1,3
. "$(dirname "$0")/study.sh"
SFT_STEPS="${SFT_STEPS:-800}"
base="${BASE:-runs/tiny/binding/model}"
editor="${EDITOR_MODEL:-runs/tiny/united/model}" # what reinforcement learning of united_rl.yaml starts from

measure() { # variant seed model
  local result="$results/$1-$2.json"
  ! chosen "$1" || [ -e "$result" ] ||
    evaluate edit "$3" "$result" --seed "$2" --rounds "$ROUNDS" --no-baselines --json > /dev/null
}
sft() { # variant options...
  # shellcheck disable=SC2086
  ! chosen "$1" || [ -e "$runs/$1-$seed/model" ] || janus-r1 train sft --config shapes/editing --resume \
    --run.out "$runs/$1-$seed" --run.seed "$seed" --run.steps "$SFT_STEPS" --run.cooldown 0.5 \
    --run.threads "$THREADS" $TRAIN "${@:2}"
  measure "$1" "$seed" "$runs/$1-$seed/model"
}
rl() { # variant model options...
  # a draft counts as right when both checks hold, also where a mere copy earns 0.67
  trial "$1" "$seed" rl --config shapes/united_rl --eval_every 0 --task edit --rounds 1 \
    --judge_threshold 0.99 --model "$2" "${@:3}"
}

paper="[{kind: world}]" # 0.5 x following + 1 x preserving; united_rl.yaml has both at once
official="[{kind: world, follow_weight: 1, preserve_weight: 0.25}]"

for seed in $SEEDS; do
  sft sft-from-base --model "$base"
  rl rl-from-base "$runs/sft-from-base-$seed/model"
  sft sft-from-r1
  rl rl-from-r1 "$runs/sft-from-r1-$seed/model"
  rl rl-from-r1-paper-weights "$runs/sft-from-r1-$seed/model" --rewards "$paper"
  rl rl-from-r1-official-weights "$runs/sft-from-r1-$seed/model" --rewards "$official"
  measure editor "$seed" "$editor"
  rl rl-editor "$editor"
  rl rl-editor-paper-weights "$editor" --rewards "$paper"
  rl rl-editor-official-weights "$editor" --rewards "$official"
done
report --title "Editing" --baseline sft-from-base --baseline rl-from-base --baseline rl-from-r1 --baseline editor

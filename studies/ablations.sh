#!/usr/bin/env bash
# STEPS=60 SEEDS="0 1 2" studies/ablations.sh
# What each choice of reinforcement learning is worth: one key of rl.yaml changed at a time, in shorter runs.
# Writes results/ablations/*.json and docs/ablations.md; run it again after an interruption and it goes on.
STUDY=ablations STEPS="${STEPS:-60}"
. "$(dirname "$0")/study.sh"
sft=runs/tiny/verdicts/model
plain=$runs/plain-sft/model # SFT on drawing alone: neither judging nor redrawing

rl() { # variant options...
  trial "$1" "$seed" rl --config shapes/rl --eval_every 0 "${@:2}"
}

for seed in $SEEDS; do
  measure before "$seed" "$sft"
  rl default --keep_candidates true
  trial rejection "$seed" sft --config shapes/rejection --candidates "$runs/default-$seed/candidates"
  rm -rf "$runs/default-$seed/candidates"
  rl credit-chain --credit chain
  rl credit-segment --credit segment
  rl credit-direct --credit direct
  rl judged-as-they-come --judge_balanced false
  rl policy-tempered --policy tempered
  rl policy-conditional --policy conditional
  rl drawing-only --judge_weight 0
  rl judging-only --draw_weight 0
  rl rounds-1 --rounds 1
  rl rounds-2 --rounds 2
  rl rounds-4 --rounds 4
done
# shellcheck disable=SC2086
! chosen plain-sft || [ -e "$plain" ] || janus-r1 train sft --config shapes/sft --resume \
  --run.out "$runs/plain-sft" --shares "{draw: 1.0}" --run.threads "$THREADS" $TRAIN
for seed in $SEEDS; do
  measure plain-sft-before "$seed" "$plain"
  rl plain-sft --model "$plain"
done
report --title "Ablations of reinforcement learning" --baseline default

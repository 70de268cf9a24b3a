#!/usr/bin/env bash
# for STEPS in 60 120; do STEPS=$STEPS studies/figure5a.sh; done
# The paper's Figure 5(a): a weaker base learns to draw from three rewards, its own judgement, R1's, and the verifier's.
# Results of other STEPS stand beside each other, so a variant's name ends with them (VARIANTS="judged-by-r1-120").
# Writes results/figure5a/*.json and docs/figure5a.md; run it again after an interruption and it goes on.
STUDY=figure5a ROUNDS=1 # first drafts are what is learnt
. "$(dirname "$0")/study.sh"
base="${BASE:-$(sed -n 's/^model: //p' src/janus_r1/recipes/shapes/sft.yaml)}" # what SFT starts from: learns, and judges itself
r1="${R1:-runs/tiny/rl/model}"

learn() { # variant reward
  trial "$1-$STEPS" "$seed" rl --config shapes/rl --model "$base" --rounds 1 --judge_weight 0 \
    --max_reason_tokens 1 --eval_every 0 --rewards "[$2]"
}

for seed in $SEEDS; do
  measure before "$seed" "$base"
  learn judged-by-base "{kind: janus, model: $base, batch_size: 128}"
  learn judged-by-r1 "{kind: janus, model: $r1, batch_size: 128}"
  learn judged-by-verifier "{kind: world}"
done
report --title "Figure 5(a): three rewards for a weaker base" --baseline before

#!/usr/bin/env bash
# Every committed result of the tiny models: results/*.json and docs/results.md; about a quarter of an hour on two cores, longer where train.sh has run.
. "$(dirname "$0")/common.sh"
mkdir -p results

measure() { # model split options...
  eval_world "$1" "results/$1-$2.json" --split "$2" --rounds 1,2,3,4 "${@:3}"
}
measure_edits() { # name split model options...
  evaluate edit "$3" "results/edit-$1-$2.json" --split "$2" --samples 4 --rounds 1,3 "${@:4}"
}

janus-r1 eval tokenizer --model tiny-base --json > results/tokenizer.json
for model in tiny-sft tiny-r1 tiny-r1-edit; do
  measure "$model" test # with the controls at equal cost: best-of-N, blind redrawing, the oracle
done
for model in tiny-base tiny-sft tiny-r1 tiny-r1-edit; do
  for split in held_out dense; do measure "$model" "$split" --no-controls; done
done
measure tiny-base test --no-controls
repairing=(--temperature 0.7 --repair-from best --final best)
measure tiny-repair test --samples 1 --limit 280 "${repairing[@]}"
measure tiny-repair dense --samples 2 "${repairing[@]}"
measure tiny-repair held_out --samples 2 "${repairing[@]}"
for split in test held_out; do
  measure_edits tiny-r1-edit "$split" tiny-r1-edit
done
stages=(editing edit_verdicts edits_again edit_rl_again united_rl united_verdicts united_mean)
stages+=(all_tasks all_rl all_mean all_seeing all_judging all_judging_mean trust)
for stage in "${stages[@]}"; do # before it, where train.sh has run
  [ ! -e "runs/tiny/$stage/model" ] || measure_edits "$stage" test "runs/tiny/$stage/model" --no-baselines
done
for model in base sft r1 r1-edit; do # as judges of the same drafts
  janus-r1 eval judge --model "tiny-$model" --out "results/judge-tiny-$model.json" --dtype bfloat16
done
for model in base sft r1 r1-edit; do # what they see
  janus-r1 eval understanding --model "tiny-$model" --descriptions 200 --checklists 200 \
    --out "results/understanding-tiny-$model.json"
done
for model in base sft r1; do # what they accept though it is wrong, and reject though it is right
  python studies/audit.py run --model "tiny-$model" --out "outputs/audit-$model" --dtype bfloat16 > /dev/null
  cp "outputs/audit-$model/audit.json" "results/audit-tiny-$model.json"
done
python studies/audit.py page results/audit-tiny-{base,sft,r1}.json > docs/audit.md
python -m janus_r1.eval.report results/tiny-{base,sft,r1,r1-edit,repair}-{test,held_out,dense}.json \
  results/understanding-tiny-{base,sft,r1,r1-edit}.json > docs/results.md

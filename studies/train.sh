#!/usr/bin/env bash
# The tiny models from nothing, in order; run it again after an interruption and it goes on.
# With EMBED=1 the results replace the models inside the package.
. "$(dirname "$0")/common.sh"

train() { # stage, its recipe where that has another name, and what differs from it
  janus-r1 train "$1" --config "shapes/${2:-$1}.yaml" --resume "${@:3}"
}
mean() { # stage, and those whose weights it averages; one named twice counts twice
  [ -e "runs/tiny/$1/model" ] || janus-r1 average "runs/tiny/$1/model" $(printf 'runs/tiny/%s/model ' "${@:2}")
}
build() {
  janus-r1 data build --config "shapes/$1.yaml" --resume
}

train vq
train pretrain
train vision
train pretrain seeing
train pretrain judging
train pretrain binding
build candidates
train sft
build own_drafts
train sft verdicts
train rl
build r1_drafts
train sft editing
train sft comparing
train sft edit_verdicts
train rl edit_rl
train sft edits_again
train rl edit_rl_again
build edit_drafts
train sft united
train rl united_rl
build united_drafts
train sft united_verdicts
mean united_mean united_verdicts united_rl edit_rl_again
build base_drafts
build dense
train sft all_tasks
train rl all_rl
mean all_mean all_rl all_rl united_mean
train sft all_seeing
mean all_seeing_mean all_seeing all_seeing all_mean
train sft all_judging
mean all_judging_mean all_judging all_judging all_mean
train sft edit_trust
train rl all_rl --model runs/tiny/edit_trust/model --run.out runs/tiny/trust_rl --run.seed 1
mean trust_rl_mean trust_rl trust_rl all_mean
train sft trust
mean trust_mean trust trust_rl_mean
if [ "${EMBED:-0}" = 1 ]; then
  embedded=src/janus_r1/model/embedded
  mkdir -p "$embedded"
  for stage in base=binding sft=verdicts r1=rl r1-edit=trust_mean; do # and its last part
    rm -rf "$embedded/tiny-${stage%=*}"
    cp -r "runs/tiny/${stage#*=}/model" "$embedded/tiny-${stage%=*}"
  done
fi

#!/usr/bin/env bash
# The tiny models from nothing, in order; run it again after an interruption and it goes on.
# With EMBED=1 the results replace the models inside the package.
. "$(dirname "$0")/common.sh"

train() { # stage, and its recipe where that has another name
  janus-r1 train "$1" --config "recipes/tiny/${2:-$1}.yaml" --resume
}
build() {
  janus-r1 data build --config "recipes/tiny/$1.yaml" --resume
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
if [ "${EMBED:-0}" = 1 ]; then
  for stage in base sft; do
    run=$([ "$stage" = base ] && echo binding || echo verdicts) # the last part of each
    rm -rf "src/janus_r1/model/embedded/tiny-$stage"
    mkdir -p src/janus_r1/model/embedded
    cp -r "runs/tiny/$run/model" "src/janus_r1/model/embedded/tiny-$stage"
  done
fi

#!/usr/bin/env bash
# The tiny models from nothing, in order; run it again after an interruption and it goes on.
# With EMBED=1 the results replace the models inside the package.
set -eu
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}" # short waits between threads: see docs/log.md
janus-r1 train vq --config recipes/tiny/vq.yaml --resume
janus-r1 train pretrain --config recipes/tiny/pretrain.yaml --resume
janus-r1 train vision --config recipes/tiny/vision.yaml --resume
janus-r1 train pretrain --config recipes/tiny/seeing.yaml --resume
janus-r1 train pretrain --config recipes/tiny/judging.yaml --resume
janus-r1 train pretrain --config recipes/tiny/binding.yaml --resume
janus-r1 data build --config recipes/tiny/candidates.yaml --resume
janus-r1 train sft --config recipes/tiny/sft.yaml --resume
if [ "${EMBED:-0}" = 1 ]; then
  for stage in base sft; do
    run=$([ "$stage" = base ] && echo binding || echo sft) # the base model is what all parts of pretraining leave
    rm -rf "src/janus_r1/model/embedded/tiny-$stage"
    mkdir -p src/janus_r1/model/embedded
    cp -r "runs/tiny/$run/model" "src/janus_r1/model/embedded/tiny-$stage"
  done
fi

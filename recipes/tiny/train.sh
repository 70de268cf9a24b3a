#!/usr/bin/env bash
# The tiny models from nothing, in order; run it again after an interruption and it goes on.
set -eu
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}"
janus-r1 train vq --config recipes/tiny/vq.yaml --resume
janus-r1 train pretrain --config recipes/tiny/pretrain.yaml --resume
janus-r1 data build --config recipes/tiny/candidates.yaml --resume
janus-r1 train sft --config recipes/tiny/sft.yaml --resume

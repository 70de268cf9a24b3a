#!/usr/bin/env bash
# benchmarks/gpu.sh [PART...]      what a GPU with 80 GB has to measure, one part after another; about 30 minutes in all
#   kernels  every kernel against torch, and its time          (1 minute)
#   alone    7B: one image, after which little has changed     (1)
#   batches  7B: 4, 16 and 64 images at once; 8-bit caches     (3)
#   rival    7B: one whole image by an official-style loop     (1)
#   rival64  7B: the same of 64 images at once                 (5)
#   small    1B: 1, 16 and 64 images                           (1)
#   chain    7B: three rounds beside the official structure    (3)
#   rl       7B, LoRA: a step of RL with 8 prompts              (5)
#   window   7B: a forward of 1, 4, 8 and 16 ids, short        (2)
#   exact    tiny-sft: images in windows, are they the same?   (3)
#   repairs  tiny-r1-edit: forwards of chains that mend drafts (1)
#   texts    tiny-repair: lists and verdicts in windows, too   (3)
# No GPU was to be had when the last four and rival64 were written: they have run on a CPU alone.
# Weights are random. Results are appended to benchmarks/results/*.jsonl, also of a part that is stopped; one that fails is
# named at the end and stops no other. SMALL=1 runs the same commands on a CPU with the tiny preset and saves nothing;
# DRY=1 prints them, one a line, and runs nothing.
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH="src:benchmarks${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
PYTHON="${PYTHON:-python3}"
place=(--device cuda --dtype bfloat16) large=(--preset 7b) middle=(--preset 1b) some=16 many=64 four=(4 16 64) kernels=()
exact=(--device cuda) images=2000
rl=(--prompts 8 --rows 16 --max-batch 32 --guidance 5 --precision bf16 --lora-rank 64 --base-dtype bfloat16 --recompute --max-reason-tokens 80)
if [ "${SMALL:-0}" = 1 ]; then
  export TRITON_INTERPRET=1
  place=(--no-save) large=(--preset tiny) middle=(--preset tiny) some=2 many=3 four=(2 3) kernels=(--small)
  exact=(--no-save) images=9
  rl=(--prompts 2 --rows 8 --max-reason-tokens 4 --no-save)
fi
batches=$(IFS=,; echo "${four[*]}")

DRY="${DRY:-0}"
python() {
  if [ "$DRY" = 1 ]; then
    echo "$PYTHON $*"
  else
    "$PYTHON" "$@"
  fi
}
decode() { python benchmarks/decode.py "${place[@]}" --repeats 1 "$@"; }
own_chains() { python benchmarks/chain.py "${exact[@]}" --guidance 1.5 --rounds 4 --repairs "$some" --window 8 "$@"; }
exactness() { python benchmarks/exactness.py "${exact[@]}" --images "$images" "$@"; }

kernels() { python benchmarks/gpu_kernels.py "${kernels[@]}"; }
alone() { decode "${large[@]}" --batch 1 --arms ours; }
batches() { decode "${large[@]}" --batch "$batches" --arms ours && decode "${large[@]}" --batch "$many" --arms ours --kv fp8; }
rival() { decode "${large[@]}" --batch 1 --arms ours,official; }
rival64() { decode "${large[@]}" --batch "$many" --arms ours,official; }
small() { decode "${middle[@]}" --batch "1,$some,$many" --arms ours; }
chain() { python benchmarks/chain.py "${large[@]}" "${place[@]}" --rounds 3 --batch "$some" --repeats 1; }
rl() { python benchmarks/rl_step.py "${large[@]}" "${rl[@]}" --arms ours --repeats 1; }
window() { decode "${large[@]}" --batch 1,4 --tokens 64 --arms ours --window 4,8,16; }
exact() { exactness --dtype float32 && exactness --dtype bfloat16; }
repairs() { own_chains --model tiny-r1-edit; }
texts() { own_chains --model tiny-repair; }

parts=(kernels alone batches rival rival64 small chain rl window exact repairs texts)
for name in "$@"; do
  if [[ " ${parts[*]} " != *" $name "* ]]; then
    echo "$0: no part $name: choose from ${parts[*]}" >&2
    exit 2
  fi
done
failed=()
for name in "${@:-${parts[@]}}"; do
  began=$SECONDS
  echo "== $name"
  "$name" || failed+=("$name")
  [ "$DRY" = 1 ] || echo "== $name: $((SECONDS - began)) s"
done
if [ "${#failed[@]}" != 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi

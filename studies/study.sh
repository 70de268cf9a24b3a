# Sourced by the studies, which set STUDY. Every variant is trained with every seed, measured on the test prompts, and
# only its result is kept, in results/$STUDY. What has a result is skipped and what was begun goes on, so with other STEPS
# or another starting model delete results/$STUDY and runs/tiny/$STUDY first. To share a study among processes, give each
# its VARIANTS; the last call, without any, finds all results there and writes the page. On a GPU:
#   DEVICE=cuda TRAIN="--compile false" THREADS=1 SEEDS=0 VARIANTS="credit-chain rounds-4" studies/ablations.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
STEPS="${STEPS:-100}"        # optimizer steps of every run
SEEDS="${SEEDS:-0 1 2}"
ROUNDS="${ROUNDS:-1,2,3,4}"  # round limits that are measured, whatever a variant was trained with
THREADS="${THREADS:-2}"
VARIANTS="${VARIANTS:-}"     # empty: all
TRAIN="${TRAIN:-}"           # more options of every training
export OMP_NUM_THREADS="$THREADS"
runs="runs/tiny/$STUDY" results="results/$STUDY"
mkdir -p "$results"

chosen() { # variant
  [ -z "$VARIANTS" ] || [[ " $VARIANTS " == *" $1 "* ]]
}

measure() { # variant seed model
  local result="$results/$1-$2.json"
  ! chosen "$1" || [ -e "$result" ] || eval_world "$3" "$result" --seed "$2" --rounds "$ROUNDS" --no-controls --json > /dev/null
}

trial() { # variant seed stage options...
  local run="$runs/$1-$2"
  if ! chosen "$1" || [ -e "$results/$1-$2.json" ]; then return; fi
  # shellcheck disable=SC2086 # options are words
  janus-r1 train "$3" --resume --run.out "$run" --run.seed "$2" --run.steps "$STEPS" --run.threads "$THREADS" \
    $TRAIN "${@:4}"
  measure "$1" "$2" "$run/model"
  rm -rf "$run"/{checkpoints,best,model}
}

report() { # options of the page...
  [ -z "$VARIANTS" ] || return 0
  python studies/study.py "$results"/*.json "$@" > "docs/$STUDY.md.tmp"
  mv "docs/$STUDY.md.tmp" "docs/$STUDY.md"
}

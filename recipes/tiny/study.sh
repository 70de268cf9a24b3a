# Sourced by the studies, which set STUDY. Every variant is trained with every seed, measured on the test prompts, and
# only its result is kept, in results/$STUDY. What has a result is skipped and what was begun goes on, so with other STEPS
# or another starting model delete results/$STUDY and runs/tiny/$STUDY first.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
STEPS="${STEPS:-100}"        # optimizer steps of every run
SEEDS="${SEEDS:-0 1 2}"
ROUNDS="${ROUNDS:-1,2,3,4}"  # round limits that are measured, whatever a variant was trained with
THREADS="${THREADS:-2}"
export OMP_NUM_THREADS="$THREADS"
runs="runs/tiny/$STUDY" results="results/$STUDY"
mkdir -p "$results"

measure() { # variant seed model
  local result="$results/$1-$2.json"
  [ -e "$result" ] || eval_world "$3" "$result" --seed "$2" --rounds "$ROUNDS" --no-controls --json > /dev/null
}

trial() { # variant seed stage options...
  local run="$runs/$1-$2"
  [ -e "$results/$1-$2.json" ] && return
  janus-r1 train "$3" --resume --run.out "$run" --run.seed "$2" --run.steps "$STEPS" --run.threads "$THREADS" \
    "${@:4}"
  measure "$1" "$2" "$run/model"
  rm -rf "$run"/{checkpoints,best,model}
}

report() { # options of the page...
  python -m janus_r1.eval.study "$results"/*.json "$@" > "docs/$STUDY.md.tmp"
  mv "docs/$STUDY.md.tmp" "docs/$STUDY.md"
}

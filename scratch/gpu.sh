#!/bin/bash
# Usage: scratch/gpu.sh SECONDS CORES < jobs ; one job a line: NAME ENV SEED WORDS...
export OUT=${OUT:-/tmp/out} OMP_NUM_THREADS=1; mkdir -p $OUT/rv $OUT/runs
limit=$1; cores=$2; start=$SECONDS
one() {
  set -- $1; name=$1 env=$2 seed=$3; shift 3; dir=/tmp/rvruns/$name
  python -m hypercrl train preset=quick device=cuda method=hnet env=$env seed=$seed protocol.eval_every=100000 protocol.eval_tasks=0 \
    protocol.final_episodes=10 protocol.heldout_episodes=1 logger=[] simulators=1 threads=1 run_dir=$dir "$@" > /tmp/$name.log 2>&1 || tail -3 /tmp/$name.log
  case $name in trial-*) [ $seed -le 2 ] && timeout 100 python scratch/evals.py $dir $OUT/rv/$name.evals 2>&1 | grep -v Warn | tail -12;; esac
  [ -f $dir/result.json ] && cp $dir/result.json $OUT/rv/$name.json && grep -E '"(decision|trial)"' $dir/metrics.jsonl > $OUT/rv/$name.decisions
  cp $dir/config.yaml $OUT/rv/$name.yaml
}
export -f one
timeout $limit xargs -P $cores -d '\n' -I{} bash -c 'one "{}"'

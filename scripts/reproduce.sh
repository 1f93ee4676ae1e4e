#!/usr/bin/env bash
# Make a table of docs/results again.
#
#   scripts/reproduce.sh                       what there is, on what it was made, how long it took
#   scripts/reproduce.sh NAME [OUT]            its commands one after another; runs and numbers in OUT
#   scripts/reproduce.sh NAME [OUT] --print    its commands alone
#
# Grids go on where they were; any other run that is there already ends it with a message: name
# another OUT. Which machine each figure is of, and which commit, is beside it in the page.
set -euo pipefail
cd "$(dirname "$0")/.."

# name | page under docs/results | machine | takes
tables() {
  cat <<'END'
paper|../results.md#the-papers-protocol|one GPU|25 minutes (six runs of four)
standard|evidence.md|one GPU|5 minutes guessed, not measured
quick|../results.md#the-quick-preset|CPU, two cores|70 minutes (ten runs of seven)
demo|../results.md#the-demo|one GPU|1 minute (three runs side by side, half a minute each)
twenty_methods|../results.md#twenty-methods|two GPUs, 13 cores|9 minutes
evidence|evidence.md|GPUs, in pieces of nine minutes|see the page; a piece: 9 minutes
orders_and_widths|evidence.md#push20|GPUs, in pieces of nine minutes|24 runs of 6 minutes guessed, not measured
many_tasks|many_tasks.md|two GPUs, 32 cores|40 minutes guessed, not measured (of its 25 runs 14 took 26)
low_rank|many_tasks.md#where-tasks-have-less-in-common|CPU, two cores|17 minutes at most (27 runs, in two goes)
film_many_tasks|many_tasks.md|one GPU, then CPU|30 minutes guessed, not measured
inversions|evidence.md#double_integrator|CPU, as many cores as there are|30 runs of 3 minutes on a core guessed, not measured
beside_dmash|inversions.md|CPU, 15 cores, its program beside it (scripts/peer_dmash.py)|30 minutes guessed, not measured
videos|../../videos/README.md|CPU; trained agents from one GPU|20 minutes guessed, not measured
whole_runs|whole_runs.md|one GPU, 16 cores|9 minutes (a run 1, sixteen seeds 6)
collected_steps|whole_runs.md|one GPU, 16 cores|2 minutes guessed, not measured
gpu_faults|whole_runs.md#a-gpu-that-is-full-or-fails|one GPU|2 minutes
sharing|whole_runs.md#sixteen-seeds-on-one-gpu|two GPUs, 32 cores|6 minutes guessed, not measured
conflicts|task_conflicts.md|one GPU|40 minutes guessed, not measured
conflicts_cheetah|task_conflicts.md#cheetah|CPU, one thread|55 minutes (two runs of 26)
engines|task_conflicts.md#push_engines|CPU, Python 3.11, hypercrl[bullet]|15 minutes guessed, not measured
planners|planners.md#how-few-samples-will-do|one GPU|10 minutes guessed, not measured
task_inference|task_inference.md|one GPU|30 minutes guessed, not measured
returns|task_inference.md#tasks-that-come-again|one GPU, 16 cores|5 minutes guessed, not measured (of 36 runs 24 ended in two)
hard_tasks|hard_tasks.md|two GPUs, 32 cores|10 minutes guessed, not measured (of one GPU's cells half were done in 5)
ensembles|members.md|CPU|30 minutes guessed, not measured
frame_hidden|memories.md|one GPU|30 minutes guessed, not measured
hidden_sequence|memories.md#one-memory-for-five-tasks|one GPU, 16 cores|8 minutes guessed, not measured (of 21 cells ten ran in 4)
recall|memories.md|one GPU|6 minutes
subset|planning_and_training_speed.md|one GPU|10 minutes guessed, not measured
plans|planning_and_training_speed.md|one GPU|5 minutes guessed, not measured
training_step|planning_and_training_speed.md#a-training-step-on-a-gpu|one GPU|5 minutes guessed, not measured
memory_kernels|memory_kernels.md|one GPU|10 minutes guessed, not measured
gymnasium|gymnasium.md|CPU|30 minutes guessed, not measured
environments|planning_and_training_speed.md|CPU|2 minutes guessed, not measured
faults|faults.md|CPU|hours
fuzz|fuzz.md|CPU|hours
soak|soak.md|CPU|hours
END
}

evidence_of() { # cells, folder, seconds
  echo "python scripts/evidence.py run --seconds ${3:-540} --only '$1' --out $2"
  echo "python scripts/evidence.py take $2/evidence.jsonl"
  echo "python scripts/evidence.py table"
}

commands() { # name, folder of what is made
  local out
  out=$(printf %q "$2")
  case $1 in
    paper)
      for env in push push_frame; do for method in hnet finetune single; do
        echo "hypercrl train preset=paper env=$env method=$method seed=0 device=cuda run_dir=$out/${env}_$method"
      done; done
      echo "hypercrl report $out/push_* out=$out/report" ;;
    standard) echo "python scripts/evidence.py run --only 'push_2000/*,door_2000/*,push/hnet/*,door/hnet/*' --out $out" ;;
    quick) echo "hypercrl bench preset=quick env=push method=hnet,finetune 'seed=range(5)' device=cpu threads=2 workers=1 out=$out/quick" ;;
    demo)
      local seeds=push_small/hnet/0,push_small/hnet/1,push_small/hnet/2
      echo "python scripts/evidence.py --kept $out/none run --only 'push_small/*' --agents $seeds --out $out"
      echo "python scripts/make_demo.py $out/push_small_hnet_0.tar.gz $out/push_demo" ;;
    twenty_methods) echo "hypercrl bench env=push method=all seed=0,1,2 preset=quick device=cuda out=$out/grid retries=2" ;;
    evidence) evidence_of '*' "$out" ;;
    orders_and_widths) evidence_of 'push20_*' "$out" ;;
    many_tasks) evidence_of 'push100/*,push100_single/*,push100_width100_kept_beta0.5/*,push100_kept*/*/0,push100_width100/*/0,push100_lora*/*' "$out" 2400 ;;
    low_rank)
      local words="env=cheetah_joints,door,slide seed=0,1,2 preset=quick device=cpu threads=1 logger=[] protocol.num_tasks=null"
      words+=" protocol.random_steps=2000 protocol.planned_steps=1 protocol.updates=2000 protocol.eval_every=100000 protocol.heldout_episodes=20"
      words+=" protocol.final_episodes=1 protocol.eval_episodes=1 planner.samples=10 planner.elites=3 planner.iterations=1 planner.horizon=3"
      echo "hypercrl bench $words method=lora method.rank=4,16 out=$out/lora"
      echo "hypercrl bench $words method=single out=$out/single"
      echo "python scripts/low_rank_errors.py $out/lora $out/single --out $out/low_rank.json" ;;
    film_many_tasks)
      local first=push100_hnet_1 second=push100_width100_kept_beta0.5_hnet_1 shown agents
      shown="--out $out --size 96 --play 'tasks=[$(seq -s, 4 4 100)]'"
      agents=push100/hnet/1,push100_width100_kept_beta0.5/hnet/1
      echo "python scripts/evidence.py --kept $out/none run --seconds 1500 --only $agents --agents $agents --out $out"
      echo "python scripts/film_agents.py $out/$first.tar.gz $shown \"title='As it ships, after task 100'\""
      echo "python scripts/film_agents.py $out/$second.tar.gz $shown \"title='Wider, held, after task 100'\""
      echo "python scripts/animate_video.py $out/$first.mp4 $out/$second.mp4 $out/push100.webp --seconds 6 --hold 3 --width 972" ;;
    inversions) evidence_of 'double_integrator/*,complex_ode/*,cartpole/*' "$out" ;;
    beside_dmash)
      local beside="python scripts/compare_inversions.py run --dmash $out/dmash --out $out/inversions.jsonl --jobs 15"
      echo "$beside --only '*/one/*,*/four/*'"
      echo "$beside --steps 12000 --only 'double_integrator*/told/*,complex_ode/told/*'"
      echo "python scripts/inversions_curve.py --out $out/inversions_curve.jsonl"
      echo "python scripts/compare_inversions.py page --kept $out/inversions.jsonl --curve $out/inversions_curve.jsonl" ;;
    videos)
      local agents=push/hnet/0,push_frame/hnet/0,door/hnet/0,push20/hnet/0
      echo "python scripts/evidence.py --kept $out/none run --seconds 1200 --only '$agents' --agents '$agents' --out $out"
      echo "python scripts/film_agents.py $out/*.tar.gz --out $out" ;;
    whole_runs)
      echo "git worktree add $out/before 56277db"
      echo "python scripts/bench_speed.py --before $out/before --parts run collect --out $out"
      echo "python scripts/bench_sharing.py seeds --seeds 16 --out $out" ;;
    collected_steps) echo "python scripts/bench_collection.py --robots 1 4 8 16 --simulators 16 --out $out/collected_steps.json" ;;
    gpu_faults) echo "python scripts/gpu_faults.py" ;;
    sharing) echo "python scripts/bench_sharing.py gpus --gpus 1,2 --cores 16 --out $out protocol.robots=4 protocol.eval_every=1200" ;;
    conflicts)
      for env in push push_frame slide door door5 cheetah; do
        echo "hypercrl train preset=paper method=single env=$env protocol.updates=500 protocol.eval_every=4000 protocol.final_episodes=5 device=cuda run_dir=$out/$env"
        echo "python scripts/conflict_matrix.py $out/$env --episodes 20 --device cuda --out $out/$env.json"
      done ;;
    conflicts_cheetah)
      for env in cheetah cheetah_joints; do
        echo "hypercrl train preset=quick env=$env method=single seed=0 device=cpu threads=1 protocol.num_tasks=null protocol.eval_every=5000 protocol.eval_episodes=3 run_dir=$out/$env"
        echo "python scripts/conflict_matrix.py $out/$env --episodes 20 --out $out/$env.json"
      done ;;
    engines)
      echo "hypercrl train preset=quick env=push_engines method=single seed=0 device=cpu protocol.eval_every=1200 protocol.final_episodes=3 protocol.eval_episodes=1 run_dir=$out/engines"
      echo "python scripts/conflict_matrix.py $out/engines --out $out/engines.json" ;;
    planners)
      for env in push door; do
        echo "hypercrl train preset=quick env=$env method=single seed=0 device=cuda run_dir=$out/$env"
        echo "python scripts/compare_planners.py $out/$env --planners cem icem --episodes 10 --repeats 3 --device cuda --out $out/$env.json"
      done ;;
    task_inference)
      echo "hypercrl bench preset=quick device=cuda env=push method=hnet protocol.num_tasks=5 protocol.eval_every=5000 protocol.final_episodes=20 task_id=inferred 'seed=range(44,56)' out=$out/grid" ;;
    returns) echo "python scripts/revisits.py $out/returns inference.trial=6 --limit 900 --out $out/revisits.json device=cuda" ;;
    hard_tasks) echo "python scripts/hard_tasks.py --seconds 900 --out $out" ;;
    ensembles) echo "python scripts/calibrate_members.py method=hnet method.members=5 --seeds 3 --out $out/hnet.json" ;;
    frame_hidden) echo "hypercrl bench env=frame_hidden method=hnet memory=none,gru,hgrn2 seed=0,1,2 preset=quick device=cuda out=$out/grid" ;;
    hidden_sequence) echo "python scripts/hidden_sequence.py --seconds 540 --out $out" ;;
    recall) echo "hypercrl bench suite=recall memory=all memory.width=16,32,64 steps=1500 device=cuda workers=8 out=$out/recall" ;;
    subset)
      for tasks in null 3 1; do
        echo "hypercrl train env=push10 preset=quick protocol.num_tasks=null protocol.final_episodes=10 protocol.eval_every=1200 method=hnet method.regularised_tasks=$tasks seed=0 device=cuda run_dir=$out/push10_$tasks"
      done ;;
    plans)
      echo "python scripts/bench_planner.py --device cuda --out $out/planner.json"
      echo "python scripts/bench_rollout.py --device cuda --out $out/rollout.json"
      echo "python scripts/bench_plans.py --out $out/plans.json" ;;
    training_step)
      echo "python scripts/bench_training.py --device cuda --out $out/training.json"
      echo "python scripts/bench_tasks.py --device cuda --out $out/tasks.json"
      echo "python scripts/step_errors.py --out $out/step_errors.txt" ;;
    memory_kernels) echo "python scripts/bench_kernels.py --shapes 'B256 T64' 'B64 T1024' 'B1 T1' 'B4096 T1'" ;;
    gymnasium) echo "python scripts/try_gymnasium.py --out $out/gymnasium" ;;
    environments) echo "python scripts/bench_envs.py --seconds 0.8 --rounds 3" ;;
    faults) echo "python scripts/faults.py --out $out/faults --folder $out/runs" ;;
    fuzz) echo "python scripts/fuzz.py --long --jobs 2 --out $out/fuzz" ;;
    soak) echo "python scripts/soak.py --out $out/soak --run $out/run" ;;
    *) return 1 ;;
  esac
}

row() { tables | awk -F'|' -v name="$1" '$1 == name'; }

if [ $# -eq 0 ]; then
  echo "scripts/reproduce.sh NAME [OUT] makes one of these; they lie in docs/results:"
  tables | while IFS='|' read -r name page machine takes; do
    printf '%-18s %-50s %s; %s\n' "$name" "$page" "$takes" "$machine"
  done
  exit
fi
name=$1
if [ -z "$(row "$name")" ]; then
  echo "there is no table $name; without a name it lists them" >&2
  exit 2
fi
shift
out=runs/reproduce/$name
case ${1:---} in
  --*) ;;
  *) out=$1 && shift ;;
esac
if [ "$*" = --print ]; then
  commands "$name" "$out"
  exit
fi
if [ $# -gt 0 ]; then
  echo "cannot read $*; a table takes its name, OUT and --print" >&2
  exit 2
fi
IFS='|' read -r _ page machine takes <<<"$(row "$name")"
echo "docs/results/$page: $takes, on $machine"
mkdir -p "$out"
started=$SECONDS
while IFS= read -r command; do
  echo "\$ $command"
  eval "$command" </dev/null
done < <(commands "$name" "$out")
echo "took $((SECONDS - started)) s; what was made is in $out"

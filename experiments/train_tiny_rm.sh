#!/bin/sh
# Makes the embedded reranker `tiny-rm` from the draws of `tiny-countdown` on problems of the split train: a quarter of an
# hour on one CPU core. `experiments/train_tiny_rm.sh build/rm irlens/models/tiny-rm`: where it works, where the model goes.
set -eu
work=${1:?where to work} model=${2:?where the model goes}
${IRLENS:-irlens} passk --model tiny-countdown --split train --limit 4000 -n 8 --temperature 0.7,1.0 --out "$work/drawn"
fit() { # from which model, into which folder, and what else
  start=$1 out=$2
  shift 2
  ${IRLENS:-irlens} fit-reranker "$work/drawn" --model "$start" --objective bradley-terry --every-token 1 --optimiser muon \
    --list-size 8 --held-out 0.05 --out "$work/$out" "$@"
}
fit tiny-countdown first --epochs 4 --batch-lists 4
fit "$work/first/model" fitted --epochs 2 --batch-lists 8 --learning-rate 5e-3
mkdir -p "$model"
for file in config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja; do
  cp "$work/fitted/model/$file" "$model/$file"
done
cp "$work/first/model/irlens.json" "$model/irlens.json" # which says that it began as tiny-countdown

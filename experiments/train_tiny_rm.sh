#!/bin/sh
# Makes the embedded reranker `tiny-rm` from the draws of `tiny-countdown` on problems of the split train: a few minutes on
# one CPU core. `experiments/train_tiny_rm.sh build/rm irlens/models/tiny-rm`: where it works, and where the model goes.
set -eu
work=${1:?where to work} model=${2:?where the model goes}
${IRLENS:-irlens} passk --model tiny-countdown --split train --limit 2000 -n 16 --temperature 1.0 --out "$work/drawn"
${IRLENS:-irlens} fit-reranker "$work/drawn" --model tiny-countdown --objective bradley-terry --epochs 2 --list-size 8 \
  --batch-lists 8 --learning-rate 1e-3 --out "$work/first"
${IRLENS:-irlens} fit-reranker "$work/drawn" --model "$work/first/model" --objective bradley-terry --epochs 1 --list-size 8 \
  --batch-lists 8 --learning-rate 8e-4 --out "$work/fitted"
mkdir -p "$model"
for file in config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja irlens.json; do
  cp "$work/fitted/model/$file" "$model/$file"
done

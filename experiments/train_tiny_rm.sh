#!/bin/sh
# Makes the embedded reranker `tiny-rm` from the draws of `tiny-countdown` on problems of the split train: about five minutes
# on one CPU core. `experiments/train_tiny_rm.sh build/rm irlens/models/tiny-rm`: where it works, and where the model goes.
set -eu
work=${1:?where to work} model=${2:?where the model goes}
${IRLENS:-irlens} passk --model tiny-countdown --split train --limit 4000 -n 8 --temperature 0.7,1.0 --out "$work/drawn"
${IRLENS:-irlens} fit-reranker "$work/drawn" --model tiny-countdown --objective bradley-terry --every-token 1 --optimiser muon \
  --epochs 1 --list-size 8 --balanced --batch-lists 6 --held-out 0.05 --out "$work/fitted"
mkdir -p "$model"
for file in config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja irlens.json; do
  cp "$work/fitted/model/$file" "$model/$file"
done

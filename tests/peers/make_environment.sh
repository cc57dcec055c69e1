#!/bin/sh
# make_environment.sh DIR [PYTHON]: an environment with stable-baselines3 and lerobot 0.4.4 on the CPU build of torch, and
# with what `weightkit verify-sync` imports, since that runs the policy's own code; weightkit comes from PYTHONPATH.
# lerobot comes without what it depends on (another torch, torchvision, video codecs): its SAC policy uses none of that,
# and programs/lerobot_imports.py stands in for it.
set -eu
dir=$1
python=${2:-python3}
"$python" -m venv "$dir"
"$dir/bin/pip" install -q "torch==2.13.0+cpu" numpy || "$dir/bin/pip" install -q torch==2.13.0 numpy
"$dir/bin/pip" install -q --no-deps stable-baselines3==2.9.2 lerobot==0.4.4 draccus==0.10.0
"$dir/bin/pip" install -q gymnasium==1.4.0 cloudpickle==3.1.2 pandas==3.1.1 huggingface-hub==0.35.3 \
    safetensors==0.8.0 einops==0.8.2 packaging==25.0 mergedeep==1.3.4 pyyaml==6.0.3 pyyaml-include==1.4.1 \
    toml==0.10.2 typing-inspect==0.9.0
"$dir/bin/pip" install -q click==8.5.1 jinja2==3.1.6 ml_dtypes==0.6.0 rich==15.0.0 xxhash==4.1.0

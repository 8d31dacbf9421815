#!/bin/sh
# Prepares a folder for a machine with a GPU and torch that has no network and lacks some packages.
#
#     benchmarks/gpu_wheels.sh [FOLDER]          # gpu-kit, which git ignores
#
# Into FOLDER/wheels go wheels for CPython 3.12 on Linux, x86-64 (VERSION=3.11 chooses another): what
# simsiam-zoo needs beside torch, torchvision, timm, OpenCV, scikit-learn, pandas, torchmetrics and
# their needs; simsiam-zoo itself, and the packages of it that are measured, for their entry points.
# FASHION (Debian's dataset-fashion-mnist, if it is installed) goes into FOLDER/fashion. At the end
# the wheels are installed into an empty folder as the other machine will, the sizes are added up,
# and its commands are printed.
set -eu

cd "$(dirname "$0")/.."
folder=${1:-gpu-kit}
version=${VERSION:-3.12}
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
fashion=${FASHION:-/usr/share/datasets/fashion-mnist}
most=64 # MB, of all that has to be carried
# Any glibc that is old enough; pip takes each of them by its very name.
platforms=""
for glibc in 2_28 2_27 2_24 2_17 2_12 2_5; do
  platforms="$platforms --platform manylinux_${glibc}_x86_64"
done
platforms="$platforms --platform manylinux2014_x86_64 --platform manylinux1_x86_64"
target="--only-binary=:all: --implementation cp --python-version $version $platforms"

rm -rf "$folder/wheels"
mkdir -p "$folder/wheels"
# With its needs: it takes one version of pydantic-core alone.
$python -m pip download --quiet $target -d "$folder/wheels" pydantic
$python -m pip download --quiet --no-deps $target -d "$folder/wheels" \
  webdataset braceexpand simplejpeg mlxtend tomli-w platformdirs
wheels=$(cd "$folder/wheels" && pwd)
for package in . plugins/simsiam-zoo-multiview plugins/simsiam-zoo-transfer plugins/simsiam-zoo-vit; do
  (cd "$package" && "$python" -m hatchling build -t wheel -d "$wheels" >/dev/null 2>&1)
done
if [ -d "$fashion" ]; then
  mkdir -p "$folder/fashion"
  cp "$fashion"/*.gz "$folder/fashion/"
fi
git rev-parse --short=12 HEAD >"$folder/COMMIT"

empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
$python -m pip install --quiet --no-index --find-links /nonexistent --no-deps --no-compile $target \
  --target "$empty" "$folder"/wheels/*.whl

ls -l "$folder/wheels" | awk 'NR > 1 { printf "%9.2f MB  %s\n", $5 / 1e6, $9 }'
size() { awk '{ s += $1 } END { printf "%.1f", s / 1e6 }'; }
kit=$(find "$folder" -type f -printf '%s\n' | size)
code=$(git ls-files -z | xargs -0 stat -c %s | size)
echo "$folder $kit MB, checkout $code MB"
awk "BEGIN { exit !($kit + $code < $most) }" || { echo "that is more than $most MB" >&2; exit 1; }

options=""
[ -d "$folder/fashion" ] && options=" --fashion $folder/fashion"
cat <<END
There, in the root of the checkout, with $folder in it:

    python3 -m pip install --no-index --no-deps --no-compile --target /tmp/site $folder/wheels/*.whl
    PYTHONPATH=\$PWD:/tmp/site make gpu PYTHON=python3 GPU='--out OUT$options'
END

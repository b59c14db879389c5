#!/bin/sh
# Clients that others wrote, for the tests that let them loose on a local port and on the server, and the packages that
# workflow files in JavaScript and TypeScript import: into DIR, at pinned versions, without running anything of theirs. Where no package index is reached, those tests are skipped.
# usage: install_foreign_clients.sh PYTHON DIR
python=$1 directory=$2
pinned_python="comfy-api-simplified==1.6.0"
pinned_javascript="@saintno/comfyui-sdk@0.3.1 @stable-canvas/comfyui-client@1.5.9 ws@8.20.0"
runpod_python="runpod==1.12.0"
runpod_javascript="runpod-sdk@1.1.2"
azurite_javascript="azurite@3.35.0"
workflow_javascript="zod@3.23.8 sucrase@3.35.0"
limit="timeout 300"
command -v timeout >/dev/null || limit=

# install FOLDER "PINNED PACKAGES" COMMAND...: all or nothing, once for a set of versions
install() {
  target="$directory/$1" pinned=$2
  shift 2
  [ "$(cat "$target/.pinned" 2>/dev/null)" = "$pinned" ] && return
  rm -rf "$target" && mkdir -p "$target"
  if $limit "$@" $pinned >/dev/null 2>&1 </dev/null; then
    echo "$pinned" >"$target/.pinned"
  else
    rm -rf "$target"
    echo "not here, its tests will be skipped: $pinned"
  fi
}

install_python() {
  install "$1" "$2" "$python" -m pip install --quiet --disable-pip-version-check \
    --retries 1 --timeout 15 --only-binary :all: --target "$directory/$1"
}

install_javascript() {
  install "$1" "$2" npm install --ignore-scripts --no-audit --no-fund \
    --fetch-retries 1 --fetch-timeout 15000 --prefix "$directory/$1"
}

install_python python "$pinned_python"
install_python runpod_python "$runpod_python"
if command -v npm >/dev/null && command -v node >/dev/null; then
  install_javascript javascript "$pinned_javascript"
  install_javascript runpod_javascript "$runpod_javascript"
  install_javascript azurite "$azurite_javascript"
  install_javascript workflow_javascript "$workflow_javascript"
else
  echo "not here, its tests will be skipped: node and npm"
fi
exit 0

#!/bin/sh
# Clients of ComfyUI that others wrote, for the tests that let them loose on a local port: into DIR, at pinned
# versions, without running anything of theirs. Where no package index is reached, those tests are skipped.
# usage: install_foreign_clients.sh PYTHON DIR
python=$1 directory=$2
pinned_python="comfy-api-simplified==1.6.0"
pinned_javascript="@saintno/comfyui-sdk@0.3.1 @stable-canvas/comfyui-client@1.5.9 ws@8.20.0"
limit="timeout 300"
command -v timeout >/dev/null || limit=

# install LANGUAGE "PINNED PACKAGES" COMMAND...: all or nothing, once for a set of versions
install() {
  target="$directory/$1" pinned=$2
  shift 2
  [ "$(cat "$target/.pinned" 2>/dev/null)" = "$pinned" ] && return
  rm -rf "$target" && mkdir -p "$target"
  if "$@" >/dev/null 2>&1 </dev/null; then
    echo "$pinned" >"$target/.pinned"
  else
    rm -rf "$target"
    echo "not here, its tests will be skipped: $pinned"
  fi
}

install python "$pinned_python" $limit "$python" -m pip install --quiet --disable-pip-version-check \
  --retries 1 --timeout 15 --only-binary :all: --target "$directory/python" $pinned_python
if command -v npm >/dev/null && command -v node >/dev/null; then
  install javascript "$pinned_javascript" $limit npm install --ignore-scripts --no-audit --no-fund \
    --fetch-retries 1 --fetch-timeout 15000 --prefix "$directory/javascript" $pinned_javascript
else
  echo "not here, its tests will be skipped: node and npm"
fi
exit 0

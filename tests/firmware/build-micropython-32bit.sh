#!/usr/bin/env bash
# Build a MicroPython unix port with 32-bit words and single-precision floats, as on an ESP32, from Debian's source package.
#   tests/firmware/build-micropython-32bit.sh OUTPUT
# Needs root on Debian or Ubuntu (x86-64): it installs a 32-bit C compiler and adds Debian 13's sources to apt's list for the download.
set -euo pipefail
output=$(realpath -m "${1:?usage: build-micropython-32bit.sh OUTPUT}")
version=1.25.0+ds-1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export DEBIAN_FRONTEND=noninteractive
list="$work/sources.sources"
cat >"$list" <<EOF
Types: deb-src
URIs: ${DEBIAN_MIRROR:-http://deb.debian.org/debian}
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends gcc-multilib libc6-dev make dpkg-dev python3 xz-utils ca-certificates >/dev/null
cd "$work"
apt=(apt-get -q -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" -o APT::Sandbox::User=root)
mkdir -p lists/partial
"${apt[@]}" update >/dev/null
"${apt[@]}" source --download-only "micropython=$version" >/dev/null
dpkg-source -x "micropython_$version.dsc" micropython >/dev/null

cd micropython
echo 'include("$(MPY_DIR)/extmod/asyncio")' >"$work/manifest.py"
make -s -C mpy-cross -j"$(nproc)" CFLAGS_EXTRA=-Wno-error >"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
make -s -C ports/unix -j"$(nproc)" MICROPY_FORCE_32BIT=1 MICROPY_STANDALONE=0 \
  MICROPY_PY_SSL=0 MICROPY_SSL_MBEDTLS=0 MICROPY_PY_FFI=0 MICROPY_PY_BTREE=0 MICROPY_PY_BLUETOOTH=0 \
  FROZEN_MANIFEST="$work/manifest.py" \
  CFLAGS_EXTRA='-Wno-error -DMICROPY_FLOAT_IMPL=MICROPY_FLOAT_IMPL_FLOAT -DMICROPY_FLOAT_USE_NATIVE_FLT16=0' \
  >"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
install -D -m 755 ports/unix/build-standard/micropython "$output"
"$output" -c 'import sys; assert sys.maxsize == 2**31 - 1 and float(840000001) == 840000000; print("built", sys.implementation)'

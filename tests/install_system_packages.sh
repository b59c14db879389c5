#!/bin/sh
# Debian's OpenSSH server and Chromium, for the tests that run over a real sshd and in a real browser; and what
# makes file systems, for the tests that cut the power of a disk; curl and jq, for the examples of the documentation.
# Starts nothing, changes no configuration.
[ -x /usr/sbin/sshd ] || wanted="$wanted openssh-server"
[ -x /usr/bin/chromium ] || wanted="$wanted chromium"
[ -x /usr/sbin/mkfs.ext4 ] || wanted="$wanted e2fsprogs"
[ -x /usr/sbin/mkfs.xfs ] || wanted="$wanted xfsprogs"
for tool in curl jq; do command -v "$tool" >/dev/null || wanted="$wanted $tool"; done
[ -n "$wanted" ] || exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "not here, its tests will be skipped:$wanted"; exit 0; }
# The package would start a system-wide sshd; policy-rc.d is Debian's way to say no.
[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; made=1; }
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$1"; }
for package in $wanted; do
  { install "$package" || { apt-get update -q && install "$package"; }; } >/dev/null 2>&1 ||
    echo "$package could not be installed"
done
[ -z "$made" ] || rm -f /usr/sbin/policy-rc.d

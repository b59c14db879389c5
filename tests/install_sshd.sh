#!/bin/sh
# Debian's OpenSSH server, for the tests that run over a real sshd. Starts nothing, changes no configuration.
[ -x /usr/sbin/sshd ] && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "no sshd here: its tests will be skipped"; exit 0; }
# The package would start a system-wide sshd; policy-rc.d is Debian's way to say no.
[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; made=1; }
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends openssh-server; }
{ install || { apt-get update -q && install; }; } >/dev/null 2>&1 || echo "openssh-server could not be installed"
[ -z "$made" ] || rm -f /usr/sbin/policy-rc.d

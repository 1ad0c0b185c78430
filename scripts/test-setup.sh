#!/bin/sh
# Installs what the tests need and is missing, from Debian's packages:
# a C compiler and libc headers (for `ring`), Prometheus and Alertmanager (the tests start both on free ports), and what makes, mounts and
# cuts a file system on a loop device (mkfs.ext4, mount, python3).
# Nothing is installed when nothing is missing, and no service is started.
set -eu

missing=''
if ! command -v cc >/dev/null 2>&1 || [ ! -e /usr/include/stdio.h ]; then
    missing="$missing build-essential"
fi
[ -x /usr/bin/prometheus ] || missing="$missing prometheus"
[ -x /usr/bin/prometheus-alertmanager ] || missing="$missing prometheus-alertmanager"
command -v mkfs.ext4 >/dev/null 2>&1 || [ -x /sbin/mkfs.ext4 ] || missing="$missing e2fsprogs"
command -v mount >/dev/null 2>&1 || missing="$missing mount"
command -v python3 >/dev/null 2>&1 || missing="$missing python3-minimal"

if [ -z "$missing" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "test-setup: missing:$missing" >&2
    echo "test-setup: this script installs Debian packages, and there is no apt-get here." >&2
    echo "test-setup: install the programs by hand as /usr/bin/prometheus and /usr/bin/prometheus-alertmanager" >&2
    echo "test-setup: (and a C compiler), or run the tests on Debian." >&2
    exit 1
fi

as_root=''
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "test-setup: missing:$missing" >&2
        echo "test-setup: not root, and there is no sudo; as root, run: apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    as_root='sudo'
fi

# Debian starts a service as soon as it is installed. This file is Debian's way to forbid that; 101 means "not allowed".
policy=/usr/sbin/policy-rc.d
ours=no
clean_up() {
    if [ "$ours" = yes ]; then
        $as_root rm -f "$policy"
    fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi

echo "test-setup: installing$missing"
$as_root apt-get update
# Not quoted: one word a package.
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing

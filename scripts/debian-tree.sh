#!/usr/bin/env bash
# Runs the tests that need real Orthancs on those of another Debian than this machine's, in a tree of its own,
# .cache/SUITE, which debootstrap makes the first time.
#   debian-tree.sh trixie …    Debian 13 (Orthanc 1.12, Python 3.13)
#   debian-tree.sh forky …     Debian testing (Orthanc 1.13, Python 3.14)
# Further arguments go to pytest; after `bench`, to the benchmark. Needs root or sudo. DEBIAN_MIRROR names another mirror than deb.debian.org.
# Debian testing moves on: a tree stays as it was made, until .cache/SUITE is deleted.
set -euo pipefail

case ${1:-} in
trixie | forky) suite=$1 ;;
*)
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
    ;;
esac

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tree=$checkout/.cache/$suite
venv=$checkout/.cache/venv-$suite
inside=/checkout
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
packages=(orthanc orthanc-python python3-venv ca-certificates curl dcmtk nginx-light iproute2 faketime e2fsprogs mount
    postgresql orthanc-postgresql)

say() { echo "$suite: $*"; }

if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env "$0" "$@"
fi
if [ -z "${TREE_NAMESPACE:-}" ]; then
    # A mount and a process namespace of our own: the kernel unmounts and ends everything with it,
    # even if this script is killed.
    TREE_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child "$0" "$@"
fi
shift

# Shows a file or folder of this machine at the same path inside, read-only, without copying it into the tree.
share() {
    local path=$1
    [ -e "$path" ] || return 0
    path=$(cd "$(dirname "$path")" && pwd)/$(basename "$path")
    if [ -d "$path" ]; then
        mkdir -p "$tree$path"
    else
        mkdir -p "$tree$(dirname "$path")"
        # A dangling link (resolv.conf of systemd) could not be mounted over.
        [ -e "$tree$path" ] || rm -f "$tree$path"
        [ -e "$tree$path" ] || touch "$tree$path"
    fi
    mount --bind "$path" "$tree$path"
    mount -o remount,bind,ro "$tree$path"
}

in_tree() {
    env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis chroot "$tree" "$@"
}

mkdir -p "$checkout/.cache"
if [ ! -e "$tree/etc/debian_version" ]; then
    say "debootstrap, about a minute the first time"
    command -v debootstrap >/dev/null || "$checkout/scripts/setup.sh" packages debootstrap
    rm -rf "$tree.new"
    # An older Debian's debootstrap does not know the suites after it; the script of unstable makes those too.
    recipe=/usr/share/debootstrap/scripts/$suite
    [ -e "$recipe" ] || recipe=/usr/share/debootstrap/scripts/sid
    debootstrap --variant=minbase "$suite" "$tree.new" "$mirror" "$recipe" \
        >"$checkout/.cache/$suite-debootstrap.log" 2>&1 ||
        { tail -n 20 "$checkout/.cache/$suite-debootstrap.log"; say "debootstrap failed"; exit 1; }
    mv "$tree.new" "$tree"
fi

# A mount of its own, as a root folder is: what is started inside may want a mount namespace (`unshare --mount`).
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t tmpfs tmpfs "$tree/tmp"
mount -t tmpfs tmpfs "$tree/run"

# apt and pip reach the network the way this machine does: its resolver, its proxies, its certificates.
share /etc/resolv.conf
share /etc/hosts
acquire=$tree/tmp/acquire.conf
apt-config dump | grep '^Acquire::' >"$acquire" || true
export APT_CONFIG=/tmp/acquire.conf

ready=$tree/.ready-$(echo "${packages[*]}" | md5sum | cut -c1-12)
if [ ! -e "$ready" ]; then
    say "installing ${packages[*]}"
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod +x "$tree/usr/sbin/policy-rc.d"
    {
        in_tree apt-get update
        in_tree apt-get install --yes --no-install-recommends "${packages[@]}"
    } >"$checkout/.cache/$suite-apt.log" 2>&1 ||
        { tail -n 20 "$checkout/.cache/$suite-apt.log"; say "apt-get failed"; exit 1; }
    touch "$ready"
fi

share /etc/ssl/certs/ca-certificates.crt
share /etc/pip.conf
for file in "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" "${CURL_CA_BUNDLE:-}" "${PIP_CONFIG_FILE:-}"; do
    [ "$file" = /etc/ssl/certs/ca-certificates.crt ] || [ -z "$file" ] || share "$file"
done
for folder in ${PIP_FIND_LINKS:-} $(python3 -m pip config list 2>/dev/null | grep -oE "(file://)/[^ ']+" | sed 's#^file://##'); do
    # The index of a folder may refer to files beside it.
    [ ! -d "$folder" ] || share "$(dirname "$folder")"
done

# The checkout is read-only; its .venv is that of this Debian's Python, so that everything finds it at its usual path.
mkdir -p "$tree$inside" "$checkout/.venv" "$venv"
mount --bind "$checkout" "$tree$inside"
mount -o remount,bind,ro "$tree$inside"
mount --bind "$venv" "$tree$inside/.venv"

python=$(in_tree ldd /usr/share/orthanc/plugins/libOrthancPython.so | grep -oE 'libpython3\.[0-9]+' | head -n 1 | sed 's/^lib//')
ready=$venv/.ready-$python-$(md5sum <"$checkout/pyproject.toml" | cut -c1-12)
if [ ! -e "$ready" ]; then
    say "the virtual environment for $python"
    {
        # A link into the tree, dangling from here. (--clear of venv would delete the folder, which is a mount.)
        [ -L "$venv/bin/$python" ] || find "$venv" -mindepth 1 -delete
        in_tree "$python" -m venv "$inside/.venv"
        in_tree "$inside/.venv/bin/pip" install --editable "$inside[test]"
    } >"$checkout/.cache/$suite-pip.log" 2>&1 ||
        { tail -n 20 "$checkout/.cache/$suite-pip.log"; say "pip failed"; exit 1; }
    touch "$ready"
fi

say "Orthanc $(in_tree dpkg-query -W -f '${Version}' orthanc)," \
    "Python plugin $(in_tree dpkg-query -W -f '${Version}' orthanc-python), $python"
if [ $# = 0 ]; then
    set -- -m "orthanc and not browser"
fi
# The checkout is read-only inside: what failed last is remembered in the tree.
module=(pytest -o cache_dir=/var/cache/pytest)
if [ "$1" = bench ]; then
    shift
    mkdir -p "$tree/var/bench"
    module=(tests.bench --folder /var/bench)
fi
in_tree sh -c 'cd "$0" && exec .venv/bin/python -m "$@"' "$inside" "${module[@]}" "$@"

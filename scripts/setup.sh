#!/usr/bin/env bash
# Makes a Debian 12 or 13 machine ready, as root or with sudo. Quick and harmless when it is ready already.
#   setup.sh run           Orthanc, its Python plugin, and .venv with what the plugin needs
#   setup.sh demo          the same, and what makes DICOM files for the demo
#   setup.sh bench         the same as for the demo, and what the benchmark uses
#   setup.sh test          the same, and everything that the tests use
#   setup.sh fast          only .venv, for the tests that need no Orthanc; without root, and on any Linux
#   setup.sh packages …    only these Debian packages
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$checkout/.venv
plugin=${ORTHANC_PYTHON_PLUGIN:-/usr/share/orthanc/plugins/libOrthancPython.so}

run_packages=(orthanc orthanc-python python3-venv ca-certificates)
test_packages=(curl chromium chromium-driver nginx-light dcmtk debootstrap iproute2 docker-compose faketime e2fsprogs mount
    postgresql orthanc-postgresql)
bench_packages=(orthanc-dicomweb iproute2 iperf3 gcc libc6-dev nginx-light)
# Servers whose packages start a service; none of them is wanted here but by the tests, which start their own.
services=(orthanc nginx postgresql)

say() { echo "setup: $*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "this needs root, or sudo: $*" >&2
        exit 1
    fi
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Stops the services that came with the packages just installed, now and at the next boot: an Orthanc of
# Debian's would hold ports 8042 and 4242, and serve without any of our configuration.
quiet_services() {
    local service
    for service in "$@"; do
        [ -e "/etc/init.d/$service" ] || continue
        as_root invoke-rc.d "$service" stop >/dev/null 2>&1 || true
        as_root update-rc.d "$service" disable >/dev/null 2>&1 || true
        say "the service $service, which came with its package, is stopped and disabled" \
            "(to have it: update-rc.d $service enable)"
    done
}

install_packages() {
    local missing=() new=() name
    for name in "$@"; do
        installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} != 0 ] || return 0
    command -v apt-get >/dev/null || {
        say "no apt-get here: install ${missing[*]} in this system's way" >&2
        exit 1
    }
    for name in "${services[@]}"; do
        [ -e "/etc/init.d/$name" ] || new+=("$name")
    done
    say "installing ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q --yes --no-install-recommends "${missing[@]}"
    quiet_services "${new[@]}"
}

# The Python inside Orthanc is the one that its plugin is linked to, whatever python3 is first in PATH.
# Compiled dependencies must be made for it.
find_python() {
    local name
    if [ ! -e "$plugin" ] && [ "$purpose" = fast ]; then
        command -v python3
        return
    fi
    name=$(ldd "$plugin" | grep -oE 'libpython3\.[0-9]+' | head -n 1 | sed 's/^lib//') || true
    if [ -z "$name" ] || [ ! -x "/usr/bin/$name" ]; then
        say "cannot find the Python that $plugin is linked to" >&2
        exit 1
    fi
    installed "$name-venv" || install_packages "$name-venv" >&2
    echo "/usr/bin/$name"
}

# Arguments: what it is for, and what has all of that too.
make_venv() {
    local purpose=$1 extra="[$1]" python wanted name
    python=$(find_python)
    if [ "$(readlink -f "$venv/bin/python")" != "$(readlink -f "$python")" ]; then
        say "a virtual environment for $python"
        rm -rf "$venv"
        "$python" -m venv "$venv"
    fi
    wanted=$(cat "$checkout/pyproject.toml" "$checkout/orthanc_transfers/_version.py" | md5sum | cut -c1-16)
    for name in "$@"; do
        [ ! -e "$venv/.ready-$wanted-$name" ] || return 0
    done
    say "installing the plugin and what it needs into .venv"
    [ "$purpose" != run ] || extra=""
    [ "$purpose" != fast ] || extra="[test]"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --editable "$checkout$extra"
    touch "$venv/.ready-$wanted-$purpose"
}

case ${1:-run} in
run)
    install_packages "${run_packages[@]}"
    make_venv run demo bench test
    ;;
demo)
    install_packages "${run_packages[@]}"
    make_venv demo bench test
    ;;
bench)
    install_packages "${run_packages[@]}" "${bench_packages[@]}"
    make_venv bench
    ;;
test)
    install_packages "${run_packages[@]}" "${test_packages[@]}"
    # The page is built anew and compared; any npm will do, and Debian's comes with hundreds of packages.
    command -v npm >/dev/null || install_packages nodejs npm
    make_venv test
    ;;
fast)
    make_venv fast test
    ;;
packages)
    shift
    install_packages "$@"
    ;;
*)
    sed -n '2,8s/^# //p' "$0" >&2
    exit 2
    ;;
esac

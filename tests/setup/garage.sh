#!/bin/sh
# Builds Garage, a third kind of S3, from crates.io in target/ (some 12 minutes, once); prints the path of its program.
set -eu
cd "$(dirname "$0")/../.."
version=2.5.0
folder=target/garage-$version
if [ ! -x "$folder/bin/garage" ]; then
    cargo install --locked --quiet --root "$folder" --target-dir target/garage-build --version "$version" garage >&2
    rm -rf target/garage-build
fi
echo "$PWD/$folder/bin/garage"

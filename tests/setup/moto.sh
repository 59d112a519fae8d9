#!/bin/sh
# Makes a second kind of S3 for the tests, moto from PyPI, in target/; prints the path of the Python that has it.
set -eu
cd "$(dirname "$0")/../.."
version=5.2.5
folder=target/moto-$version
if [ ! -d "$folder" ]; then
    # Beside its place, then moved: who finds the folder finds it whole, and of two makers one wins.
    making=$folder.$$
    trap 'rm -rf "$making"' EXIT
    mkdir -p target
    python3 -m venv "$making" >&2
    "$making/bin/python" -m pip install --quiet --disable-pip-version-check "moto[server]==$version" >&2
    mv -T "$making" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
echo "$PWD/$folder/bin/python"

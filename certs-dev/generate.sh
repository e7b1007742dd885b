#!/bin/sh
# Makes the certificates the examples use, in certs-dev/out. Run again, it keeps the root and issues the leaves
# again. Arguments are passed on: `--client NAME`, `--days N`, `--rsa`.
#
# TWINLOCK names the program; else it is the `twinlock` on the PATH; else it is built from this checkout.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
set -- dev-certs --out "$here/out" --host mysql.fqdn.example --host localhost "$@"

if [ -n "${TWINLOCK:-}" ]; then
    exec "$TWINLOCK" "$@"
elif command -v twinlock >/dev/null 2>&1; then
    exec twinlock "$@"
else
    exec cargo run --quiet --release --manifest-path "$here/../Cargo.toml" -- "$@"
fi

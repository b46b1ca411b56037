#!/bin/sh
# Builds the Debian packages shadowmesh and shadowmesh-relay into target/debian.
#
#   packaging/build.sh [relay|daemon]...     both unless told otherwise
#
# Needs cargo-deb: cargo install cargo-deb --locked --root ~/.cache/shadowmesh/tools
set -eu
cd "$(dirname "$0")/.."
PATH="${SHADOWMESH_CACHE:-$HOME/.cache/shadowmesh}/tools/bin:$PATH"
command -v cargo-deb >/dev/null || {
    echo 'build.sh: cargo-deb is missing; run "cargo install cargo-deb --locked --root ~/.cache/shadowmesh/tools"' >&2
    exit 1
}
[ $# -gt 0 ] || set -- relay daemon

release="${CARGO_TARGET_DIR:-target}/release"
# File times in the packages: those of the sources, so that the same sources make the same package.
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

# Man pages and licence texts of the programs in one package, where its list of files expects them.
stage() {
    stage="$release/package/$1"
    rm -rf "$stage"
    mkdir -p "$stage/man"
    packaging/third-party-notices.py "$@" >"$stage/THIRD-PARTY-NOTICES"
    gzip -9n "$stage/THIRD-PARTY-NOTICES"
    for program in "$@"; do
        case $program in
        meshctl) "$release/$program" man "$stage/man" ;;
        *) "$release/$program" --man "$stage/man" ;;
        esac
    done
    gzip -9n "$stage"/man/*
}

for package in "$@"; do
    case $package in
    relay)
        cargo build --release --locked -p meshrelay
        stage meshrelay
        cargo deb --no-build --locked -p meshrelay
        ;;
    daemon)
        cargo build --release --locked -p meshd -p meshctl
        stage meshd meshctl
        mkdir "$stage/completions"
        "$release/meshctl" completions bash >"$stage/completions/meshctl"
        "$release/meshctl" completions zsh >"$stage/completions/_meshctl"
        "$release/meshctl" completions fish >"$stage/completions/meshctl.fish"
        cargo deb --no-build --locked -p meshd
        ;;
    *)
        echo "build.sh: there is no package \"$package\"; use relay or daemon" >&2
        exit 2
        ;;
    esac
done

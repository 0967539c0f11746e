#!/bin/sh
# Makes a Debian package of the command, with its man pages, its completions, its documents and the client of the tour. The preload library is inside a release build:
#
#     cargo build --release -p pontoon
#     packaging/deb.sh target/release/pontoon pontoon.deb
set -eu
[ $# -eq 2 ] && [ -x "$1" ] || { echo "usage: $0 COMMAND OUT.deb (COMMAND: cargo build --release -p pontoon makes it)" >&2; exit 2; }
command=$(realpath "$1")
source=$(dirname "$(realpath "$0")")/..
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# Of others, too: this folder is the package's root.
chmod 755 "$root"
man=$root/usr/share/man/man1
mkdir -p "$root/DEBIAN" "$man" "$root/usr/bin" "$root/usr/share/bash-completion/completions" \
    "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d" "$root/usr/share/doc/pontoon/examples"
install -s -m 755 "$command" "$root/usr/bin/pontoon"
"$command" man "$man"
gzip -9n "$man"/*.1
"$command" completions bash > "$root/usr/share/bash-completion/completions/pontoon"
"$command" completions zsh > "$root/usr/share/zsh/vendor-completions/_pontoon"
"$command" completions fish > "$root/usr/share/fish/vendor_completions.d/pontoon.fish"
install -m 644 "$source/clients/tour.c" "$source/clients/gpu.h" "$source/clients/xe.h" "$root/usr/share/doc/pontoon/examples"
cp -r --no-preserve=mode "$source/docs" "$root/usr/share/doc/pontoon"
cat "$source/LICENSE-MIT" "$source/LICENSE-APACHE" > "$root/usr/share/doc/pontoon/copyright"
cat > "$root/DEBIAN/control" <<CONTROL
Package: pontoon
Version: $("$command" --version | cut -d ' ' -f 2)
Architecture: $(dpkg --print-architecture)
Maintainer: The Pontoon authors <pontoon@example.invalid>
Section: devel
Priority: optional
Depends: libc6 (>= 2.34), libgcc-s1
Recommends: gcc
Description: two-tile Xe GPU made of software
 Unmodified programs that use Linux' Xe interface run on a GPU that does not exist, and their
 memory migrates on real page faults between system memory and the VRAM of its tiles.
CONTROL
dpkg-deb -Zgzip --root-owner-group --build "$root" "$2" > /dev/null

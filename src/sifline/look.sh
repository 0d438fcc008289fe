#!/bin/sh
# Runs in a build step that has an image's file system mounted, as the engine built it: tells
# what a stream of a container made of it hides or leaves out (see sifline.rootfs).
set -eu

main() {
    image=$1 paths=$2 out=$3
    mkdir -p "$out"
    cd "$image"
    sqfstar -version | head -n 1 > "$out/tools"
    stat --format '%f %u %g' . > "$out/root"
    while IFS= read -r path; do
        if [ -e "$path" ] || [ -L "$path" ]; then printf '%s\0' "$path"; fi
    done < "$paths" > "$out/present"
    tar --create --file "$out/entries.tar" --format pax --pax-option delete=atime,delete=ctime \
        --numeric-owner --no-recursion --null --files-from "$out/present"
    find . -type b,c,p -links +1 -print -quit > "$out/linked"
    xargs --null --no-run-if-empty sh -c 'find "$@" -maxdepth 0 ! -type d -links +1' names \
        < "$out/present" >> "$out/linked"
    getfattr --recursive --physical --no-dereference --dump --match - --encoding hex . \
        > "$out/xattrs"
}

main "$@"

#!/bin/sh
# Runs in a build step that has an image's file system mounted, as the engine built it: tells
# what a stream of a container made of it hides or leaves out (see sifline.rootfs).
set -eu

usage() {
    cat << 'END'
usage: look.sh [--help] IMAGE PATHS OUT

Writes to the folder OUT, which is made, what the file system at IMAGE has of the paths that the
file PATHS lists, one a line, and which extended attributes it has.

exit status: 0 done; 2 wrong usage; 3 a tool is missing; else that of the step that failed
END
}

fail() {
    printf 'look.sh: %s\n' "$2" >&2
    exit "$1"
}

need() {
    for tool in "$@"; do
        command -v "$tool" > /dev/null || fail 3 "$tool is not found; is PATH right? It is: ${PATH:-empty}"
    done
}

check() {
    case ${1:-} in
        -*) fail 2 "there is no option $1; see look.sh --help" ;;
    esac
    case $# in
        0) fail 2 'IMAGE is missing; see look.sh --help' ;;
        1) fail 2 'PATHS is missing; see look.sh --help' ;;
        2) fail 2 'OUT is missing; see look.sh --help' ;;
        3) ;;
        *) fail 2 "there is no fourth argument, but $4 was given; see look.sh --help" ;;
    esac
    [ -d "$1" ] || fail 2 "IMAGE is no folder: $1"
    [ -f "$2" ] || fail 2 "PATHS is no file: $2"
    need find getfattr head mkdir sqfstar stat tar xargs
}

# Paths are followed from IMAGE later on.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$PWD/$1" ;;
    esac
}

main() {
    if [ "${1:-}" = --help ]; then
        usage
        return
    fi
    check "$@"
    image=$1 paths=$(absolute "$2") out=$(absolute "$3")
    mkdir -p "$out"
    cd "$image"
    sqfstar -version | head -n 1 > "$out/tools"
    stat --format '%f %u %g' . > "$out/root"
    while IFS= read -r path; do
        if [ -e "$path" ] || [ -L "$path" ]; then printf '%s\0' "$path"; fi
    done < "$paths" > "$out/present"
    tar --create --file "$out/entries.tar" --format pax --pax-option delete=atime,delete=ctime \
        --numeric-owner --no-recursion --null --files-from "$out/present"
    # Overlayfs lists what a layer hides in a folder of its own, and denies that it is there.
    find . -ignore_readdir_race -printf '%y %m %U %G %P\0' > "$out/tree"
    find . -ignore_readdir_race -type b,c,p -links +1 -print -quit > "$out/linked"
    xargs --null --no-run-if-empty sh -c 'find "$@" -maxdepth 0 ! -type d -links +1' names \
        < "$out/present" >> "$out/linked"
    find . -ignore_readdir_race -links +0 -print0 \
        | xargs --null getfattr --physical --no-dereference --dump --match - --encoding hex \
        > "$out/xattrs"
}

main "$@"

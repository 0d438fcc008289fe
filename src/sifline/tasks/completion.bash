#!/usr/bin/env bash
# Made by `invoke completion --shell bash`; for one session: source <(invoke completion --shell bash)
# In a project of sifline its own program answers, quickly; in others, Invoke does.

_sifline_complete() {
    local candidates program='import sys; sys.path[:] = filter(None, sys.path)
from sifline.tasks import completion; completion.main()'
    candidates=$(@PYTHON@ -c "$program" bash "$2" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case $? in
        0) compopt +o default ;;
        10) candidates='' ;; # the names of files, which are the default
        *)
            candidates=$("$1" --complete -- invoke "${COMP_WORDS[@]:1}" 2>/dev/null)
            candidates=$(compgen -W "$candidates" -- "$2")
            ;;
    esac
    COMPREPLY=()
    if [[ $candidates ]]; then
        mapfile -t COMPREPLY <<<"$candidates"
    fi
}

complete -F _sifline_complete -o default invoke inv sifline

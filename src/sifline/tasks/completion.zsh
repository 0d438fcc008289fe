# Made by `invoke completion --shell zsh`; for one session: source <(invoke completion --shell zsh)
# In a project of sifline its own program answers, quickly; in others, Invoke does.

_sifline_complete() {
    local text code
    local -a candidates
    local program='import sys; sys.path[:] = filter(None, sys.path)
from sifline.tasks import completion; completion.main()'
    text=$(@PYTHON@ -c $program zsh "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    code=$?
    candidates=("${(@f)text}")
    case $code in
        0) [[ -n $text ]] && _describe candidate candidates ;;
        10)
            compset -P '*='
            _files
            ;;
        *)
            text=$(${(Q)words[1]} --complete -- invoke "${(@Q)words[2,CURRENT]}" 2>/dev/null)
            candidates=("${(@f)text}")
            if [[ -n $text ]]; then compadd -a candidates; else _files; fi
            ;;
    esac
}

if (( ! $+functions[compdef] )); then
    autoload -Uz compinit
    compinit -i
fi
compdef _sifline_complete invoke inv sifline

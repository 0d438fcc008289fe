# Made by `invoke completion --shell fish`; for one session: invoke completion --shell fish | source
# In a project of sifline its own program answers, quickly; in others, Invoke does.

function __sifline_complete
    set --local before (commandline --tokenize --cut-at-cursor --current-process)
    set --local half (commandline --current-token --cut-at-cursor)
    set --local program 'import sys; sys.path[:] = filter(None, sys.path)
from sifline.tasks import completion; completion.main()'
    set --local candidates (@PYTHON@ -c $program fish $before "$half" 2>/dev/null)
    switch $status
        case 0
            printf '%s\n' $candidates
        case 10
            set --local flag (string match --regex '^--[^=]+=' -- $half)
            set --local value (string replace --regex '^--[^=]+=' '' -- $half)
            printf "$flag%s\n" (__fish_complete_path "$value")
        case '*'
            $before[1] --complete -- invoke $before[2..] $half 2>/dev/null
    end
end

complete --command invoke --command inv --command sifline --no-files --arguments '(__sifline_complete)'

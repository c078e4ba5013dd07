# Completion of pasta and passt for fish: options as --help has them.

for program in pasta passt
    complete -c $program -n 'string match -q -- "-*" (commandline -ct)' \
        -a "($program --help | string match -rg '^ +(?:-., )?(--[a-z0-9-]+)')"
end

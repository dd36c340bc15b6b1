# Built-ins of bash and of a POSIX shell with redirections: >, >>, <, <>, here-documents, >|, noclobber, tests, cd, globs, read loops, source.
. "$(dirname "$0")/lib.sh"

builtins() {
    cd "$T" || exit 1
    echo one >file
    echo two >>file
    printf '%s\n' three four >>"$T/file"
    while read -r line; do printf '<%s>' "$line"; done <file
    echo
    { read -r first; read -r second; } <file
    echo "$first $second"
    read -r text <<END
a here-document in $(echo memory)
END
    echo "$text"
    exec 5>held
    echo into >&5
    echo held >&5
    exec 5>&-
    exec 6<held
    read -r a <&6
    read -r b <&6
    exec 6<&-
    echo "$a $b"
    exec 7<>held
    read -r a <&7
    echo HELD >&7
    exec 7>&-
    while read -r line; do echo "$line"; done <held
    set -C
    (echo clobbered >file) 2>/dev/null && echo "noclobber did not hold"
    echo forced >|forced
    set +C
    [ -f file ] && [ -s file ] && [ -r file ] && [ ! -d file ] && [ -d "$T" ] && [ ! -e none ] && echo tests
    [ "$T/file" -ef file ] && echo same
    : >empty
    [ -s empty ] || echo empty
    mkdir -p dir/sub dir/.hidden
    for i in 1 2 3 10; do : >"dir/f$i"; done
    : >"dir/with space"
    for name in dir/*; do echo "[$name]"; done
    for name in dir/f?; do echo "[$name]"; done
    echo dir/[!f]* d*/s*
    echo no*match
    cd dir/sub && pwd | { read -r p; echo "${p##*/}"; }
    : >../from-below
    cd ../.. && [ -f dir/from-below ] && echo back
    cd dir && cd - >/dev/null && echo "${PWD##*/}"
    cd none 2>/dev/null || echo "no such directory"
    echo 'sourced=yes' >script
    . ./script
    echo "$sourced"
    umask 077
    : >private
    umask 022
    (echo in a subshell >subshell)
    read -r line <subshell && echo "$line"
    { echo to; echo both; } >both 2>&1
    read -r line <both && echo "$line"
    (read -r x <absent) 2>/dev/null || echo "cannot read what is not there"
    (: >absent/file) 2>/dev/null || echo "cannot write below what is not there"
    i=0
    while [ $i -lt 500 ]; do echo "line $i" >>log; i=$((i + 1)); done
    n=0
    while read -r line; do n=$((n + 1)); done <log
    echo "$n lines"
    cd /
}

shopt -s extglob  # read when a function is
only_bash() {
    cd "$T" || exit 1
    shopt -s nullglob dotglob globstar
    printf '[%s]' dir/* none* dir/!(f*) **/sub; echo
    mapfile -t lines <log
    echo "${#lines[@]} ${lines[499]}"
    echo "$(<file)"
    [[ file -nt log ]] || echo older
    text=$(printf 'x%.0s' {1..5000})
    printf '%s' "$text" >long
    read -r -N 5000 again <long
    [[ $again == "$text" ]] && echo long
    cat <<<"a here-string"
    exec {fd}>named
    echo "by a name" >&"$fd"
    exec {fd}>&-
    read -r line <named && echo "$line"
    printf '%(%Y)T\n' 0
    compgen -f "$T/f" | sed "s|$T/||" | sort
    cd /
}

in_bash=$(builtins 2>&1)
printf '%s\n' "$in_bash"
rm -rf "${T:?}"/*
definition=$(declare -f builtins)
in_dash=$(T=$T "${POSIX_SHELL:-dash}" -c "$definition
builtins" 2>&1)
equal "bash and dash agree" "$in_dash" "$in_bash"
equal "private" "$(stat -c %a "$T/private")" 600
only_bash 2>&1
rm -rf "${T:?}"/* "$T"/.[!.]*
equal "nothing left" "$(ls -A "$T")" ""
finish

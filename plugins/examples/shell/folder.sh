#!/bin/sh
# A keyhaul plugin: keeps each secret as a file of base64, in the folder that `args` names.
# keyhaul writes no quote inside a text, so that a text ends at the next one; a value stands last.
umask 077
cd "$1" || exit 1
text() { found=${line#*\"$1\":\"} found=${found%%\"*}; }
answer() { printf '{"id":%s%s}\n' "$id" "$1"; }
refuse() { answer ",\"error\":{\"kind\":\"$1\",\"message\":\"$2\"}"; }
write() { rm -f ".$$" && printf '%s\n' "$found" >".$$" && sync ".$$"; } 2>/dev/null
read -r line
printf '{"keyhaul":1,"name":"folder","version":"1.0","max-value":16384,"capabilities":["read","write","create","delete"]}\n'
while IFS= read -r line; do
    case $line in *'"do":"'*) ;; *) continue ;; esac # nobody waits any more: it is done by then
    id=${line#*\"id\":} id=${id%%,*}
    text path; file=$(printf %s "$found" | sha256sum) file=${file%% *}
    text do
    case $found in
    get) if read -r found 2>/dev/null <"$file"; then answer ",\"base64\":\"$found\""; else refuse not-found 'no such secret'; fi ;;
    stat) if [ -e "$file" ]; then answer; else refuse not-found 'no such secret'; fi ;;
    delete) if rm -f "$file" && sync .; then answer; else refuse unavailable 'the file stays'; fi ;;
    put) text mode; mode=$found; text base64
        if ! write; then refuse storage-full 'the value cannot be written'
        elif [ "$mode" = overwrite ] && mv ".$$" "$file" && sync .; then answer
        elif ln ".$$" "$file" 2>/dev/null && sync .; then answer
        else refuse already-exists 'there is such a secret'; fi ;;
    probe) answer ;;
    *) refuse unsupported 'no such request' ;;
    esac
done

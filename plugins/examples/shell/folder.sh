#!/bin/sh
# A keyhaul plugin: keeps each secret as a file of base64, in the folder that `args` names.
# keyhaul writes no quote inside a text, so that a text ends at the next one; a value stands last.
umask 077; cd -- "${1:?a folder}" || exit 1
text() { found=${line#*\"$1\":\"} found=${found%%\"*}; }
answer() { printf '{"id":%s%s}\n' "$id" "$1"; }
refuse() { answer ",\"error\":{\"kind\":\"$1\",\"message\":\"$2\"}"; }
absent() { if [ -e "$file" ]; then refuse unavailable 'the file cannot be read'; else refuse not-found 'no such secret'; fi; }
write() { rm -f ".$$" && printf '%s\n' "$found" >".$$" && sync ".$$"; }
find . -maxdepth 1 -type f -name '.[0-9]*' -mmin +9 -delete # what one that was killed has left
read -r line
printf '{"keyhaul":1,"name":"folder","version":"1.0","max-value":16384,"capabilities":["read","write","create","delete"]}\n'
while IFS= read -r line; do
    case $line in *'"do":"'*) ;; *) continue ;; esac # nobody waits any more: it is done by then
    id=${line#*\"id\":} id=${id%%,*}
    text path; file=$(printf %s "$found" | sha256sum) file=${file%% *}; text do
    case $found in
    get) if read -r found 2>/dev/null <"$file"; then answer ",\"base64\":\"$found\""; else absent; fi ;;
    stat) if [ -f "$file" ]; then answer; else absent; fi ;;
    delete) if rm -f "$file" && sync .; then answer; else refuse unavailable 'the file stays'; fi ;;
    put) text mode; mode=$found; text base64; error=
        if ! write; then error=unavailable
        elif [ "$mode" = overwrite ]; then mv -T ".$$" "$file" || error=unavailable
        elif ! ln -T ".$$" "$file" 2>/dev/null; then error=unavailable; [ ! -e "$file" ] || error=already-exists
        fi
        if rm -f ".$$" && sync . && [ -z "$error" ]; then answer; else refuse "${error:-unavailable}" 'the value is not kept'; fi ;;
    probe) answer ;;
    *) refuse unsupported 'no such request' ;;
    esac
done

#!/usr/bin/env bash
# A runner in the shell: it counts words, and shows that the protocol needs no library.
#
# Frames are lines of JSON: from the supervisor on descriptor 3, to it on descriptor 4. Outlive writes the fields that matter
# here before anything that a caller chooses, and `bytes` behind all, so regular expressions find them; a script with more to
# read uses jq. It answers pings between tasks, so its tasks must be short.
#
# Input {"text": "..."}; a chunk for each line, and the result {"lines": n, "words": n}.
set -uf

say() { printf '%s\n' "$1" >&4; }
# The first field of this name in $line.
field() { [[ $line =~ \"$1\":\"?([^\",}]*) ]] && REPLY=${BASH_REMATCH[1]}; }

count() { # about input
  local text lines=0 words=0 each
  if ! [[ $2 =~ \"text\":\"(([^\"\\]|\\.)*)\" ]]; then
    say "{\"type\":\"error\",$1,\"exception\":{\"type\":\"InputError\",\"message\":\"the input has no text\"}}"
    return
  fi
  text=${BASH_REMATCH[1]//\\\"/\"}
  while IFS= read -r each || [[ -n $each ]]; do
    # shellcheck disable=SC2086 # to be split into words; `set -f` keeps them from being file names
    set -- "$1" $each
    lines=$((lines + 1)) words=$((words + $# - 1))
    say "{\"type\":\"chunk\",$1,\"text\":\"line $lines: $(($# - 1)) words\\n\"}"
  done < <(printf '%b' "$text")
  say "{\"type\":\"result\",$1,\"value\":{\"lines\":$lines,\"words\":$words}}"
}

if [[ -z ${OUTLIVE_RUNNER:-} ]]; then
  echo "wordcount.sh is a runner; start it with: outlive up runners.toml" >&2
  exit 2
fi
say '{"type":"hello","version":1,"tasks":["count"]}'
say '{"type":"state","state":"ready"}'
while IFS= read -r line <&3; do
  bytes=
  # Raw bytes behind the line are counted as bytes, whatever the language is.
  if [[ $line =~ ,\"bytes\":([0-9]+)\}$ ]]; then
    LC_ALL=C IFS= read -r -N $((BASH_REMATCH[1] + 1)) bytes <&3
  fi
  field type
  case $REPLY in
    ping) field n && say "{\"type\":\"pong\",\"n\":$REPLY}" ;;
    task)
      field id && about="\"id\":\"$REPLY\""
      field attempt && about="$about,\"attempt\":$REPLY"
      field task
      if [[ $REPLY == count ]]; then
        count "$about" "${bytes:-${line#*\"input\":}}"
      else
        say "{\"type\":\"error\",$about,\"exception\":{\"type\":\"LookupError\",\"message\":\"there is only the task count\"}}"
      fi
      ;;
    shutdown)
      say '{"type":"end"}'
      exit 0
      ;;
  esac
done
exit 1

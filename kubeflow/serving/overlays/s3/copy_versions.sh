#!/bin/sh
# Copies the versions that models.config names from MODEL_STORE, and removes those it no longer names:
#   copy_versions.sh once    each version once, then end; fails if one is missing
#   copy_versions.sh keep    the same again and again
set -eu
models=${MODELS:-/models/recommender}
config=${MODEL_CONFIG:-/etc/recommender/models/models.config}

named_versions() {
  sed -n 's/^ *versions: *\([0-9][0-9]*\).*$/\1/p' "$config" | sort -u
}

copy() {
  incoming=$models/.incoming-$1
  rm -rf "$incoming"
  aws s3 cp --recursive --only-show-errors "$MODEL_STORE/$1" "$incoming" &&
    [ -f "$incoming/saved_model.pb" ] && mv "$incoming" "$models/$1" && echo "copied version $1"
}

copy_all() {
  [ -n "$(named_versions)" ] || { echo "$config names no versions: make a release first" >&2; return 1; }
  missing=0
  for version in $(named_versions); do
    [ -d "$models/$version" ] || copy "$version" || { echo "version $version cannot be copied" >&2; missing=1; }
  done
  return "$missing"
}

remove_others() {
  named=" $(named_versions | tr '\n' ' ')"
  for folder in "$models"/[0-9]*; do
    case "$named" in *" ${folder##*/} "*) ;; *) rm -rf "$folder" ;; esac
  done
}

mkdir -p "$models"
case "${1:-}" in
  once) copy_all ;;
  keep)
    # The server polls models.config more often than this removes, so nothing is taken away that it still loads.
    while sleep "${SECONDS_BETWEEN:-15}"; do
      copy_all || continue
      sleep "${SECONDS_BETWEEN:-15}"
      remove_others
    done
    ;;
  *) echo "usage: copy_versions.sh once|keep" >&2; exit 64 ;;
esac

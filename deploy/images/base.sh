#!/bin/sh
# Makes a base image of Debian's packages, where no registry answers: base.sh NAME:TAG
# As root, with mmdebstrap and buildah. MIRROR is that of this machine by default.
set -eu
mirror=${MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
mmdebstrap --quiet --variant=minbase --include=python3.11-venv,ca-certificates,usr-is-merged \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$folder/base.tar" "$mirror"
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/base.tar" / >/dev/null
buildah commit --quiet --rm "$container" "$1" >/dev/null

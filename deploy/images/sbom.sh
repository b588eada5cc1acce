#!/bin/sh
# Writes what an image's Python environment holds, as CycloneDX JSON: sbom.sh IMAGE FILE
# With cyclonedx-py of requirements-lint.txt (`make lint-k8s` installs it), and docker, buildah or
# podman. What BASE brings is not in it: the release's attestations list that too.
set -eu
image=$1 file=$2
program=$(dirname "$0")/../../.venv-lint/bin/cyclonedx-py
[ -x "$program" ] || program=cyclonedx-py
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv --without-pip "$folder/environment"

packed() {  # The metadata of the packages.
    set -- sh -c 'cd /opt/tuneproof/lib/python3.*/site-packages && tar -c -- *.dist-info'
    if docker info >/dev/null 2>&1; then
        docker run --rm --entrypoint "$1" "$image" "$2" "$3"
    elif command -v buildah >/dev/null; then
        container=$(buildah from "$image")
        buildah run --isolation chroot "$container" -- "$@"
        buildah rm "$container" >/dev/null
    else
        podman run --rm --entrypoint "$1" "$image" "$2" "$3"
    fi
}

packed | tar -x -C "$folder"/environment/lib/python3.*/site-packages
mkdir -p "$(dirname "$file")"
"$program" environment --no-validate --output-reproducible --schema-version 1.6 \
    --outfile "$file" "$folder/environment"

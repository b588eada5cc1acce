#!/bin/sh
# Builds the images and says how large they are: with docker where its daemon answers, else with
# buildah or podman. `make images` calls it; its variables:
#
#   IMAGES       targets of the Dockerfile; all of them by default
#   REPOSITORY   what stands before their names, as registry.example/tuneproof
#   TAG          the version by default
#   BASE         a Debian-like image with Python 3.11; base.sh makes one where no registry answers
#   ACCELERATOR  cpu, or gpu for trainer and generator on GPUs; their tag then ends in -gpu
#   PLATFORM     as linux/arm64; that of this machine by default
#   PIP_CONF     pip's configuration for the build, as of a mirror; no image keeps it
#   SBOM         a folder for what each image holds, as CycloneDX JSON
#   BUILD_FLAGS  more options of the tool's build
set -eu
cd "$(dirname "$0")/../.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' orchestrator/pyproject.toml)
images=${IMAGES:-judge orchestrator retriever-slim trainer generator retriever}
repository=${REPOSITORY:-tuneproof}
accelerator=${ACCELERATOR:-cpu}

if docker info >/dev/null 2>&1; then
    tool=docker name=Repository
elif command -v buildah >/dev/null; then
    tool=buildah name=Name
elif command -v podman >/dev/null; then
    tool=podman name=Repository
else
    echo "Nothing builds images here: start docker, or install buildah or podman" >&2
    exit 1
fi

for target in $images; do
    tag=${TAG:-$version}
    case $target in
        retriever-slim) image=$repository/retriever:$tag-slim ;;
        trainer | generator) [ "$accelerator" = cpu ] || tag=$tag-gpu
            image=$repository/$target:$tag ;;
        *) image=$repository/$target:$tag ;;
    esac
    set -- --file deploy/images/Dockerfile --target "$target" --tag "$image" \
        --build-arg "VERSION=$version" --build-arg "ACCELERATOR=$accelerator"
    [ -z "${BASE:-}" ] || set -- "$@" --build-arg "BASE=$BASE"
    [ -z "${PLATFORM:-}" ] || set -- "$@" --platform "$PLATFORM"
    [ -z "${PIP_CONF:-}" ] || set -- "$@" --secret "id=pip,src=$PIP_CONF"
    [ $tool = docker ] || set -- "$@" --layers
    # shellcheck disable=SC2086  # Several options.
    $tool build "$@" ${BUILD_FLAGS:-} .
    [ -z "${SBOM:-}" ] || deploy/images/sbom.sh "$image" "$SBOM/$target.cdx.json"
    built="${built:-} $image"
done

for image in $built; do
    $tool images --filter "reference=$image" --format "{{.$name}}:{{.Tag}}  {{.Size}}"
done

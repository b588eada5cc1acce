#!/bin/sh
# Runs a command beside a Weaviate server, and adds the flags that name it.
#
#   with_weaviate.sh FOLDER COMMAND...
#
# The server keeps its data in FOLDER and ends with the command. It is the one of the folder that
# TUNEPROOF_TOOLS names; HTTP_PORT and GRPC_PORT choose other ports.
set -eu

tool=${TUNEPROOF_TOOLS:-}/weaviate/weaviate.sh
if [ ! -f "$tool" ]; then
    echo "No Weaviate server: give WEAVIATE_URL=http://host:port, or set TUNEPROOF_TOOLS to a folder" \
        "that holds weaviate/weaviate.sh" >&2
    exit 1
fi
folder=$1
shift
http=${HTTP_PORT:-47808}
grpc=${GRPC_PORT:-47809}
mkdir -p "$folder"
"$tool" start "$folder" "$http" "$grpc" >/dev/null
trap '"$tool" stop "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$@" --store weaviate --weaviate-url "http://127.0.0.1:$http" --weaviate-grpc "127.0.0.1:$grpc"

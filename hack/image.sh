#!/usr/bin/env bash
# Builds the container image: image.sh NAME PLATFORM,...
# With one platform the image is there to be run (docker images); with several
# it is an archive in the OCI layout, bin/image.tar, as docker keeps images of
# other platforms only in a registry. Needs docker with buildx, or podman.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=${1:?usage: image.sh NAME PLATFORM,...}
platforms=${2:?usage: image.sh NAME PLATFORM,...}
archive=bin/image.tar

for p in ${platforms//,/ }; do
  dir=${p/\//-} # linux/arm/v7: linux-armv7
  dir=bin/image/${dir//\//}
  if [ ! -x "$dir/usr/local/bin/shim" ]; then
    echo "$dir/usr/local/bin/shim is missing: run make cross" >&2
    exit 1
  fi
done

missing=()
if ! command -v docker >/dev/null; then
  missing+=("docker is not installed")
elif ! docker buildx version >/dev/null 2>&1; then
  missing+=("docker is there, its plugin buildx is not")
elif ! docker info >/dev/null 2>&1; then
  missing+=("docker is there, its daemon does not answer")
elif [[ $platforms == *,* ]]; then
  exec docker buildx build --platform "$platforms" --tag "$name" --output "type=oci,dest=$archive" .
else
  exec docker buildx build --platform "$platforms" --tag "$name" --load .
fi

if ! command -v podman >/dev/null; then
  missing+=("podman is not installed")
elif [[ $platforms == *,* ]]; then
  podman build --platform "$platforms" --manifest "$name" .
  exec podman manifest push --all "$name" "oci-archive:$archive"
else
  exec podman build --platform "$platforms" --tag "$name" .
fi

echo "cannot build an image:" >&2
printf '  %s\n' "${missing[@]}" >&2
echo "the files that would be in it are in bin/image" >&2
exit 1

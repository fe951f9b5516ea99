#!/usr/bin/env bash
# Makes a kind cluster whose storage is shim: up.sh [stacked|external].
#
#   stacked   shim in etcd's static pod on three control-plane nodes (default)
#   external  shim as one container beside the cluster, over mutual TLS
#
# Environment: CLUSTER (shim) is the name of the cluster, NODE_IMAGE the node
# image of kind's to start from. Needs docker, kind 0.33 and Go; external also
# openssl. down.sh takes all of it away again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

kind_of=${1:-stacked}
cluster=${CLUSTER:-shim}
node_image=${NODE_IMAGE:-kindest/node:v1.37.0}
image=shim.local/etcd:dev # as in stacked.yaml
shim_node=shim.local/node:dev
work=$root/bin/kind/$cluster

die() {
  echo "up.sh: $*" >&2
  exit 1
}

need() {
  for tool in "$@"; do
    command -v "$tool" >/dev/null || die "$tool is not installed"
  done
  docker info >/dev/null 2>&1 || die "docker's daemon does not answer"
}

build_image() {
  case $(docker info --format '{{.Architecture}}') in
  x86_64 | amd64) platform=linux/amd64 ;;
  aarch64 | arm64) platform=linux/arm64 ;;
  armv7l | arm) platform=linux/arm/v7 ;;
  *) die "no image for docker's architecture $(docker info --format '{{.Architecture}}')" ;;
  esac
  make -C "$root" image IMAGE="$image" PLATFORMS="$platform"
}

# The static pod starts while the cluster is made, before an image could be
# loaded into it. So the image goes into the node image, as kind's own images
# do when it builds one.
build_node_image() {
  builder=$(docker run --detach --entrypoint sleep --security-opt seccomp=unconfined "$node_image" infinity)
  # shellcheck disable=SC2064 # the name of now
  trap "docker rm --force --volumes $builder >/dev/null" EXIT
  docker exec --detach "$builder" containerd
  docker exec "$builder" bash -c 'for i in {0..30}; do ctr version >/dev/null 2>&1 && exit; sleep 1; done; exit 1' ||
    die "containerd does not start in $node_image"
  docker save "$image" | docker exec --interactive "$builder" \
    ctr --namespace=k8s.io images import --label=io.cri-containerd.pinned=pinned --all-platforms --no-unpack --digests -
  docker exec "$builder" pkill containerd
  docker commit --change 'ENTRYPOINT [ "/usr/local/bin/entrypoint", "/sbin/init" ]' "$builder" "$shim_node" >/dev/null
}

# A CA, and one certificate for each side of the connection.
make_certs() {
  mkdir -p "$work/certs"
  openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=shim-ca \
    -keyout "$work/ca.key" -out "$work/certs/ca.crt" 2>/dev/null
  for name in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" \
      -keyout "$work/certs/$name.key" -out "$work/$name.csr" 2>/dev/null
    printf 'subjectAltName=DNS:shim-etcd,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >"$work/$name.ext"
    openssl x509 -req -days 365 -in "$work/$name.csr" -extfile "$work/$name.ext" \
      -CA "$work/certs/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -out "$work/certs/$name.crt" 2>/dev/null
  done
}

# kind's network is made by kind, with its first cluster; on a machine without
# one, a network made here does as well.
start_external() {
  docker network inspect kind >/dev/null 2>&1 || docker network create kind >/dev/null
  docker run --detach --name shim-etcd --network kind --restart unless-stopped \
    --volume "$work/certs:/etc/shim:ro" --volume shim-etcd:/var/lib/etcd "$image" \
    etcd --name=shim-etcd --data-dir=/var/lib/etcd \
    --listen-client-urls=https://0.0.0.0:2379 --advertise-client-urls=https://shim-etcd:2379 \
    --cert-file=/etc/shim/server.crt --key-file=/etc/shim/server.key \
    --client-cert-auth --trusted-ca-file=/etc/shim/ca.crt \
    --listen-metrics-urls=http://0.0.0.0:2381
}

case $kind_of in
stacked)
  need docker kind make
  build_image
  build_node_image
  kind create cluster --name "$cluster" --image "$shim_node" --config "$here/stacked.yaml"
  ;;
external)
  need docker kind make openssl
  build_image
  make_certs
  start_external
  sed "s|CERTS|$work/certs|" "$here/external.yaml" >"$work/cluster.yaml"
  kind create cluster --name "$cluster" --image "$node_image" --config "$work/cluster.yaml"
  ;;
*) die "stacked or external, not $kind_of" ;;
esac

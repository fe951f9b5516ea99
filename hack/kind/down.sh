#!/usr/bin/env bash
# Takes away what up.sh made, whichever of both it was. CLUSTER as there.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cluster=${CLUSTER:-shim}

kind delete cluster --name "$cluster"
docker rm --force --volumes shim-etcd >/dev/null 2>&1 || true
docker volume rm --force shim-etcd >/dev/null
docker image rm --force shim.local/node:dev shim.local/etcd:dev >/dev/null 2>&1 || true
rm -rf "$root/bin/kind/$cluster"

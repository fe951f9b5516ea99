# The server in the place of etcd's image: the binary, under its own name and
# under etcd's, which is what kubeadm's static pod starts. Nothing else is in
# it: no shell, no etcdctl. `make image` builds it; bin/image comes from
# `make cross`.
FROM scratch
ARG TARGETARCH
ARG TARGETVARIANT
COPY bin/image/linux-${TARGETARCH}${TARGETVARIANT}/ /
EXPOSE 2379 2380
CMD ["/usr/local/bin/etcd"]

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
)

// nodeManifests are simulated nodes with room for ten pods each and more.
func nodeManifests(count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Node
metadata:
  name: node-%03d
  labels: {kubernetes.io/hostname: node-%03d, kubernetes.io/os: linux, type: kwok}
  annotations: {kwok.x-k8s.io/node: fake}
status:
  allocatable: {cpu: "32", memory: 256Gi, pods: "110"}
  capacity: {cpu: "32", memory: 256Gi, pods: "110"}
`, i, i)
	}
	return b.String()
}

func deploymentManifest(namespace, name string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[2]s}}
  strategy: {rollingUpdate: {maxSurge: 25%%, maxUnavailable: 25%%}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      containers: [{name: main, image: "registry.invalid/app:v1"}]
      tolerations: [{operator: Exists}]
`, namespace, name, replicas)
}

const widgetDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
`

func widgetManifests(namespace string, count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, "---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {name: widget-%03d, namespace: %s}\nspec: {size: %d}\n", i, namespace, i)
	}
	return b.String()
}

func configMapManifests(namespace, prefix string, count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s-%03d, namespace: %s}\ndata: {at: \"%d\"}\n", prefix, i, namespace, i)
	}
	return b.String()
}

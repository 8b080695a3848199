{{/* Binds the role of a feature: everywhere, or in the namespaces. Takes root, feature, namespaces, and
conditions: true if the account that writes status conditions has it too; or group: who has it instead of the agent. */}}
{{- define "nmi.bindFeature" -}}
{{- $name := include "nmi.featureRole" . -}}
{{- $root := .root -}}
{{- range .namespaces | default (list "") }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ if . }}RoleBinding{{ else }}ClusterRoleBinding{{ end }}
metadata:
  name: {{ $name }}
  {{- with . }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "nmi.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  {{- with $.group }}
  - apiGroup: rbac.authorization.k8s.io
    kind: Group
    name: {{ . }}
  {{- else }}
  - kind: ServiceAccount
    name: {{ include "nmi.serviceAccount" $root }}
    namespace: {{ $root.Release.Namespace | quote }}
  {{- end }}
  {{- if and $.conditions (include "nmi.writesConditions" $root) }}
  - kind: ServiceAccount
    name: {{ include "nmi.conditions" $root }}
    namespace: {{ $root.Release.Namespace | quote }}
  {{- end }}
{{- end }}
{{- end -}}

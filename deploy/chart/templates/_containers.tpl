{{- define "nmi.image" -}}
{{- with .Values.image.repository }}{{ . }}/{{ end }}{{ .Values.nmi.image }}:{{ .Values.nmi.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* Whether this node's rules are anybody's business here. */}}
{{- define "nmi.redirects" -}}
{{- if ne (toString .Values.nmi.redirect) "none" }}true{{ end -}}
{{- end -}}

{{- define "nmi.readsKubeletConfig" -}}
{{- if not (include "nmi.isOn" .Values.nmi.allowNetworkPluginKubenet) }}true{{ end -}}
{{- end -}}

{{- define "nmi.kubeletConfig" -}}
{{- .Values.nmi.kubeletConfig | default "/etc/default/kubelet" -}}
{{- end -}}

{{/* Of whatever touches links, rules and chains. */}}
{{- define "nmi.kernelSecurityContext" -}}
runAsUser: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: { type: RuntimeDefault }
capabilities:
  drop: [ALL]
  {{- if include "nmi.redirects" . }}
  # NET_ADMIN: link, rules, chains. NET_RAW: legacy iptables speaks by a raw socket.
  add: [NET_ADMIN, NET_RAW]
  {{- end }}
{{- end -}}

{{/* The agent: the kernel's side and the server in one process. */}}
{{- define "nmi.agentContainer" -}}
name: nmi
image: {{ include "nmi.image" . }}
imagePullPolicy: {{ .Values.image.imagePullPolicy }}
args:
  - --node=$(NODE_NAME)
  - --operation-mode=managed
  - --forceNamespaced
  {{- with include "nmi.flags" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
env:
  - name: NODE_NAME
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
  {{- with .Values.nmi.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if ne (include "nmi.metricsPort" .) "0" }}
ports:
  - name: metrics
    containerPort: {{ include "nmi.metricsPort" . }}
{{- end }}
{{- if ne (include "nmi.probePort" .) "0" }}
livenessProbe:
  httpGet: { path: /livez, port: {{ include "nmi.probePort" . }} }
  initialDelaySeconds: 10
  periodSeconds: 5
readinessProbe:
  httpGet: { path: /readyz, port: {{ include "nmi.probePort" . }} }
  periodSeconds: 5
{{- end }}
{{- with .Values.nmi.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "nmi.kernelSecurityContext" . | nindent 2 }}
{{- with include "nmi.mounts" . | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nmi.mounts" -}}
{{- if include "nmi.redirects" . }}
- { name: xtables-lock, mountPath: /run/xtables.lock }
{{- end }}
{{- if include "nmi.readsKubeletConfig" . }}
- { name: kubelet-config, mountPath: {{ include "nmi.kubeletConfig" . }}, readOnly: true }
{{- end }}
{{- with .Values.nmi.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "nmi.volumes" -}}
{{- if include "nmi.redirects" . }}
- name: xtables-lock
  hostPath: { path: /run/xtables.lock, type: FileOrCreate }
{{- end }}
{{- if not (include "nmi.isOn" .Values.uninstall.openNodes) }}
{{- if include "nmi.readsKubeletConfig" . }}
- name: kubelet-config
  hostPath: { path: {{ include "nmi.kubeletConfig" . }}, type: FileOrCreate }
{{- end }}
{{- with .Values.nmi.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Opens the node; the pod is ready when it is done. */}}
{{- define "nmi.openContainer" -}}
name: open
image: {{ include "nmi.image" . }}
imagePullPolicy: {{ .Values.image.imagePullPolicy }}
args:
  - redirect
  - remove
  {{- with include "nmi.flags" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
securityContext:
  {{- include "nmi.kernelSecurityContext" . | nindent 2 }}
{{- if include "nmi.redirects" . }}
volumeMounts:
  - { name: xtables-lock, mountPath: /run/xtables.lock }
{{- end }}
{{- end -}}

{{/* A DaemonSet's pod has to go on running. */}}
{{- define "nmi.idleContainer" -}}
name: nmi
image: {{ include "nmi.image" . }}
imagePullPolicy: {{ .Values.image.imagePullPolicy }}
command: [sleep, infinity]
resources:
  requests: { cpu: 1m, memory: 4Mi }
  limits: { memory: 16Mi }
securityContext:
  runAsUser: 65532
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  seccompProfile: { type: RuntimeDefault }
  capabilities: { drop: [ALL] }
{{- end -}}

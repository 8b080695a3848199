{{- define "nmi.image" -}}
{{- $problem := "image.repository is empty. Nobody publishes an image: build one (docs/install.md), push it, and set image.repository to where it is" -}}
{{ required $problem .Values.image.repository }}/{{ .Values.nmi.image }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.nmi.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{- define "nmi.redirect" -}}
{{- .Values.nmi.redirect | default "auto" -}}
{{- end -}}

{{/* Where there is a redirect that another container can keep: "pinned" is the serving side's own. */}}
{{- define "nmi.isSplit" -}}
{{- if has (include "nmi.redirect" .) (list "auto" "ebpf" "iptables" "pinned") }}{{ include "nmi.isOn" .Values.nmi.privilegeSplit }}{{ end -}}
{{- end -}}

{{/* What is given, or the first free port after the agent's own. */}}
{{- define "nmi.sidePort" -}}
{{- $port := include "nmi.given" .given -}}
{{- range $offset := until 4 -}}
{{- $next := add (ternary $.usual (int $.own) (eq $.own "0")) 1 $offset | toString -}}
{{- if and (eq $port "") (not (has $next $.taken)) }}{{ $port = $next }}{{ end -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{/* With what the chart looks up. */}}
{{- define "nmi.values" -}}
{{- mergeOverwrite (deepCopy .Values) (dict "nmi" (dict "identityOwners" (include "nmi.identityOwners" .))) | toYaml -}}
{{- end -}}

{{/*
The values of the container that keeps the kernel's side, with privilegeSplit or without. An agent without
a redirect has no right to open a node that had one before.
*/}}
{{- define "nmi.kernelValues" -}}
{{- $values := include "nmi.values" . | fromYaml -}}
{{- if include "nmi.isSplit" . -}}
{{- $side := .Values.nmi.redirectSide -}}
{{- $taken := concat (list (include "nmi.probePort" .) (include "nmi.metricsPort" .)) (include "nmi.agentPorts" . | splitList " ") -}}
{{- $probe := include "nmi.sidePort" (dict "given" $side.probePort "own" (include "nmi.probePort" .) "usual" 8085 "taken" $taken) -}}
{{- $metrics := include "nmi.sidePort" (dict "given" $side.prometheusPort "own" (include "nmi.metricsPort" .) "usual" 9090 "taken" (append $taken $probe)) -}}
{{- $_ := mergeOverwrite $values (dict "nmi" (dict "probePort" $probe "prometheusPort" $metrics)) -}}
{{- else if and (include "nmi.isOn" .Values.uninstall.openNodes) (eq (include "nmi.redirect" .) "none") -}}
{{- $_ := mergeOverwrite $values (dict "nmi" (dict "redirect" "auto")) -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}

{{/* Of the container that answers pods. */}}
{{- define "nmi.servingValues" -}}
{{- $values := include "nmi.values" . | fromYaml -}}
{{- if include "nmi.isSplit" . -}}
{{- $_ := mergeOverwrite $values (dict "nmi" (dict "redirect" "pinned")) -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}

{{- define "nmi.mayUseEbpf" -}}
{{- if has (include "nmi.redirect" .) (list "auto" "ebpf") }}true{{ end -}}
{{- end -}}

{{/* By itself, or behind the programs of eBPF. */}}
{{- define "nmi.mayUseIptables" -}}
{{- if has (include "nmi.redirect" .) (list "auto" "ebpf" "iptables") }}true{{ end -}}
{{- end -}}

{{/* Which pod a caller's cgroup is of, whichever container records callers. */}}
{{- define "nmi.readsCgroups" -}}
{{- if has (include "nmi.redirect" .) (list "auto" "ebpf" "pinned") }}true{{ end -}}
{{- end -}}

{{- define "nmi.isServingSide" -}}
{{- if eq (include "nmi.redirect" .) "pinned" }}true{{ end -}}
{{- end -}}

{{- define "nmi.readsKubeletConfig" -}}
{{- if not (include "nmi.isOn" .Values.nmi.allowNetworkPluginKubenet) }}true{{ end -}}
{{- end -}}

{{- define "nmi.kubeletConfig" -}}
{{- .Values.nmi.kubeletConfig | default "/etc/default/kubelet" -}}
{{- end -}}

{{/* Of whatever touches nothing of the node. */}}
{{- define "nmi.plainSecurityContext" -}}
runAsUser: 65532
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: { type: RuntimeDefault }
# The empty list takes away what an object that Helm takes over had.
capabilities: { drop: [ALL], add: [] }
{{- end -}}

{{/* Of whatever touches links, rules and chains. */}}
{{- define "nmi.kernelSecurityContext" -}}
runAsUser: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: { type: RuntimeDefault }
capabilities:
  drop: [ALL]
  {{- if include "nmi.mayUseEbpf" . }}
  # NET_ADMIN: link, rules, chains, programs. BPF: programs and their maps.
  # NET_RAW: legacy iptables speaks by a raw socket.
  add: [NET_ADMIN, NET_RAW, BPF]
  {{- else if include "nmi.mayUseIptables" . }}
  # NET_ADMIN: link, rules, chains. NET_RAW: legacy iptables speaks by a raw socket.
  add: [NET_ADMIN, NET_RAW]
  {{- end }}
{{- end -}}

{{/*
Where the host's file systems are in the container, by variables: a verb that somebody types in there has
them too.
*/}}
{{- define "nmi.places" -}}
{{- if include "nmi.readsCgroups" . }}
- { name: NMI_CGROUP_ROOT, value: {{ .Values.nmi.cgroupRoot | default "/host/cgroup" | quote }} }
{{- end }}
{{- if not (include "nmi.isServingSide" .) }}
- { name: NMI_BPF_PIN_FOLDER, value: {{ .Values.nmi.bpfPinFolder | default "/host/bpf/nmi" | quote }} }
{{- with .Values.nmi.redirect }}
- { name: NMI_REDIRECT, value: {{ . | quote }} }
{{- end }}
{{- end }}
{{- end -}}

{{/* The agent: with privilegeSplit the server alone, else the kernel's side too, in one process. */}}
{{- define "nmi.agentContainer" -}}
name: nmi
image: {{ include "nmi.image" . }}
imagePullPolicy: {{ .Values.image.imagePullPolicy }}
# `kubectl describe pod` shows why it ended.
terminationMessagePolicy: FallbackToLogsOnError
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
  {{- include "nmi.places" . | trim | nindent 2 }}
  {{- with .Values.nmi.explainSocket }}
  - { name: NMI_EXPLAIN_SOCKET, value: {{ . | quote }} }
  {{- end }}
  {{- with .Values.nmi.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if and (ne (include "nmi.metricsPort" .) "0") (not (include "nmi.maySurge" .)) }}
ports:
  - name: metrics
    containerPort: {{ include "nmi.metricsPort" . }}
{{- end }}
{{- if include "nmi.maySurge" . }}
# No `ports`: on the host network the scheduler would refuse the second agent of a node.
# Until the agent before has ended, the probe port answers for that one.
startupProbe:
  exec: { command: [nmi, ready] }
  periodSeconds: 2
  timeoutSeconds: 5
  # Eleven minutes: an agent that waits for the API server is not restarted, or only as often as the kubelet's back-off
  # begins anew, which is after ten.
  failureThreshold: 330
{{- end }}
{{- include "nmi.probes" . }}
{{- with .Values.nmi.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- if include "nmi.isSplit" . }}
  {{- include "nmi.plainSecurityContext" . | nindent 2 }}
  {{- else }}
  {{- include "nmi.kernelSecurityContext" . | nindent 2 }}
  {{- end }}
{{- with include "nmi.mounts" . | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The kernel's side alone; it answers no pod and asks no API server. */}}
{{- define "nmi.redirectContainer" -}}
name: redirect
image: {{ include "nmi.image" . }}
imagePullPolicy: {{ .Values.image.imagePullPolicy }}
# `kubectl describe pod` shows why it ended.
terminationMessagePolicy: FallbackToLogsOnError
args:
  - redirect
  - run
  {{- with include "nmi.flags" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
env:
  # Else only this container would be exempt, not the one that fetches.
  - name: NMI_POD_UID
    valueFrom:
      fieldRef:
        fieldPath: metadata.uid
  - { name: NMI_SLOT_FOLDER, value: /run/nmi-agent }
  {{- include "nmi.places" . | trim | nindent 2 }}
{{- if and (ne (include "nmi.metricsPort" .) "0") (not (include "nmi.maySurge" .)) }}
ports:
  - name: kernel-metrics
    containerPort: {{ include "nmi.metricsPort" . }}
{{- end }}
{{- include "nmi.probes" . }}
{{- with .Values.nmi.redirectSide.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "nmi.kernelSecurityContext" . | nindent 2 }}
volumeMounts:
  {{- include "nmi.kernelMounts" . | trim | nindent 2 }}
  - { name: shared, mountPath: /run/nmi }
  - { name: slots, mountPath: /run/nmi-agent }
{{- end -}}

{{- define "nmi.probes" -}}
{{- if ne (include "nmi.probePort" .) "0" }}
livenessProbe:
  httpGet: { path: /livez, port: {{ include "nmi.probePort" . }} }
  initialDelaySeconds: 10
  periodSeconds: 5
  # An agent that hangs does not hear SIGTERM: the grace of the pod would be waited for in vain.
  terminationGracePeriodSeconds: 3
readinessProbe:
  httpGet: { path: /readyz, port: {{ include "nmi.probePort" . }} }
  periodSeconds: 5
{{- end }}
{{- end -}}

{{/*
Of the redirect. Not below /sys: there AppArmor's profile for containers lets nothing be written, so
nothing be pinned, and the container has its own part of the cgroup2 tree, which tells it what to
exempt.
*/}}
{{- define "nmi.kernelMounts" -}}
{{- if include "nmi.mayUseIptables" . }}
- { name: xtables-lock, mountPath: /run/xtables.lock }
{{- end }}
{{- if include "nmi.mayUseEbpf" . }}
- { name: bpf, mountPath: /host/bpf }
- { name: cgroup, mountPath: /host/cgroup, readOnly: true }
{{- else if include "nmi.isServingSide" . }}
- { name: shared, mountPath: /run/nmi }
- { name: cgroup, mountPath: /host/cgroup, readOnly: true }
{{- else if eq (include "nmi.redirect" .) "none" }}
# To tell of what an agent by eBPF left.
- { name: bpf, mountPath: /host/bpf, readOnly: true }
{{- else }}
# To take away what an agent by eBPF left.
- { name: bpf, mountPath: /host/bpf }
{{- end }}
{{- end -}}

{{- define "nmi.mounts" -}}
{{- include "nmi.kernelMounts" . }}
{{- if include "nmi.readsKubeletConfig" . }}
- { name: kubelet-config, mountPath: {{ include "nmi.kubeletConfig" . }}, readOnly: true }
{{- end }}
- { name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true }
{{- with .Values.nmi.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "nmi.volumes" -}}
{{- if include "nmi.mayUseIptables" . }}
- name: xtables-lock
  hostPath: { path: /run/xtables.lock, type: FileOrCreate }
{{- end }}
# The kernel's own folder, there whether a BPF file system is mounted or not.
- name: bpf
  hostPath: { path: /sys/fs/bpf, type: Directory }
{{- $opens := include "nmi.isOn" .Values.uninstall.openNodes }}
{{- if or (include "nmi.mayUseEbpf" .) (and (include "nmi.isSplit" .) (not $opens)) }}
- name: cgroup
  hostPath: { path: /sys/fs/cgroup, type: Directory }
{{- end }}
{{- if $opens }}
{{ include "nmi.bootGuardVolume" . }}
{{- end }}
{{- if include "nmi.isSplit" . }}
{{- if not $opens }}
# What both containers tell each other: the state of the redirect, and pods on the host network.
- name: shared
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- end }}
# Where two agents of this node agree who has which port. Only root may write there.
- name: slots
  hostPath: { path: /run/nmi-agent, type: DirectoryOrCreate }
{{- end }}
{{- if not $opens }}
# As Kubernetes would mount it, but into one container: the other asks no API server.
- name: account
  projected:
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3600 }
      - configMap: { name: kube-root-ca.crt, items: [{ key: ca.crt, path: ca.crt }] }
      - downwardAPI: { items: [{ path: namespace, fieldRef: { fieldPath: metadata.namespace } }] }
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
# `kubectl describe pod` shows why it ended.
terminationMessagePolicy: FallbackToLogsOnError
args:
  - redirect
  - remove
  # The unit of the boot guard would close the node again at its next boot.
  - --boot-guard-folder=/host/systemd
  {{- with include "nmi.flags" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
env:
  {{- include "nmi.places" . | trim | nindent 2 }}
  {{- if include "nmi.isSplit" . }}
  - { name: NMI_SLOT_FOLDER, value: /run/nmi-agent }
  {{- end }}
securityContext:
  {{- include "nmi.kernelSecurityContext" . | nindent 2 }}
volumeMounts:
  {{- include "nmi.kernelMounts" . | trim | nindent 2 }}
  - { name: boot-guard, mountPath: /host/systemd }
  {{- if include "nmi.isSplit" . }}
  - { name: slots, mountPath: /run/nmi-agent }
  {{- end }}
{{- end -}}

{{- define "nmi.bootGuardVolume" -}}
# Who may write there may run anything on the host: only in the step that ends.
- name: boot-guard
  hostPath: { path: /etc/systemd/system, type: DirectoryOrCreate }
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
  {{- include "nmi.plainSecurityContext" . | nindent 2 }}
{{- end -}}

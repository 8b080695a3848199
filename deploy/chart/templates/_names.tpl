{{/*
Names. The objects of a node agent are not multiplied by releases, so they do not carry the
release's name. No selector is that of an object of aad-pod-identity: what would take its DaemonSet's place is
refused by the API server.
*/}}
{{- define "nmi.name" -}}
{{- if .Values.nameOverride }}{{ .Values.nameOverride }}-nmi{{ else }}nmi{{ end -}}
{{- end -}}

{{- define "nmi.serviceAccount" -}}
{{- if .Values.nameOverride }}{{ include "nmi.name" . }}{{ else }}aad-pod-id-nmi-service-account{{ end -}}
{{- end -}}

{{- define "nmi.role" -}}
{{- if .Values.nameOverride }}{{ include "nmi.name" . }}{{ else }}aad-pod-id-nmi-role{{ end -}}
{{- end -}}

{{- define "nmi.roleBinding" -}}
{{- if .Values.nameOverride }}{{ include "nmi.name" . }}{{ else }}aad-pod-id-nmi-binding{{ end -}}
{{- end -}}

{{/* Of the role for one feature, and of its binding. Takes root and feature. */}}
{{- define "nmi.featureRole" -}}
{{- with .root }}
{{- if .Values.nameOverride }}{{ include "nmi.name" . }}{{ else }}aad-pod-id-nmi{{ end -}}
{{- end }}-{{ .feature }}
{{- end -}}

{{/* aad-pod-identity has one by the short name, and AKS deletes it with the add-on. */}}
{{- define "nmi.exception" -}}
{{- with .Values.nameOverride }}{{ . }}-{{ end }}aks-addon-exception
{{- end -}}

{{- define "nmi.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 58 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 58 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 58 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "nmi.selector" -}}
{{- if .Values.nameOverride -}}
app.kubernetes.io/name: {{ .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: nmi
{{- else -}}
component: nmi
tier: node
app.kubernetes.io/component: nmi
{{- end -}}
{{- end -}}

{{/* Of the DaemonSet and its pods: both ways in which the pods of NMI have been looked for. */}}
{{- define "nmi.podLabels" -}}
component: nmi
tier: node
k8s-app: aad-pod-id
app.kubernetes.io/component: nmi
{{- end -}}

{{- define "nmi.labels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* "true" or nothing. In the old chart any text was true, "false" included; nobody meant that. */}}
{{- define "nmi.isOn" -}}
{{- if eq (toString .) "true" }}true{{ end -}}
{{- end -}}

{{/* A value that is set, 0 and false being values, or nothing. Lists become comma-separated. */}}
{{- define "nmi.given" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if kindIs "float64" . }}{{ int64 . }}
{{- else if not (kindIs "invalid" .) }}{{ toString . }}
{{- end -}}
{{- end -}}

{{/* A duration in milliseconds, or nothing. */}}
{{- define "nmi.durationMs" -}}
{{- if eq . "0" }}0
{{- else if regexMatch "^([0-9]+([.][0-9]+)?(ms|h|m|s))+$" . -}}
{{- $ms := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|h|m|s)" . -1 -}}
{{- $ms = addf $ms (mulf (regexFind "[0-9.]+" .) (get (dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1) (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- int64 $ms -}}
{{- end -}}
{{- end -}}

{{/* What the agent would refuse at its start: the schema knows no durations, and no numbers in texts. */}}
{{- define "nmi.checkRange" -}}
{{- $number := ternary (include "nmi.durationMs" .given) (regexFind "^[0-9]{1,15}$" .given) (eq .kind "duration") -}}
{{- $isOff := and (eq .kind "duration") (eq .given "0") -}}
{{- $isOutside := or (lt (int64 $number) (int64 .min)) (gt (int64 $number) (int64 .max)) -}}
{{- if or (eq $number "") (and $isOutside (not $isOff)) }}
{{- fail (printf "%s=%s must be %s" .name .given .allowed) }}
{{- end -}}
{{- end -}}

{{- define "nmi.flag" -}}
{{- $given := include "nmi.given" .value -}}
{{- if ne $given "" }}
{{- if .kind }}{{ include "nmi.checkRange" (merge (dict "given" $given) .) }}{{ end }}
- {{ printf "%s=%s" .flag $given | quote }}
{{- end -}}
{{- end -}}

{{- define "nmi.probePort" -}}
{{- include "nmi.given" .Values.nmi.probePort | default "8080" -}}
{{- end -}}

{{- define "nmi.metricsPort" -}}
{{- include "nmi.given" .Values.nmi.prometheusPort | default "9090" -}}
{{- end -}}

{{/* Not while nodes are opened, which is the end of the agents. */}}
{{- define "nmi.writesConditions" -}}
{{- if not (include "nmi.isOn" .Values.uninstall.openNodes) }}{{ include "nmi.isOn" .Values.conditions.enabled }}{{ end -}}
{{- end -}}

{{- define "nmi.bootGuardSelector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: boot-guard
{{- end -}}

{{/*
What the boot guard's DaemonSet does, or nothing. Once it is disabled it removes the unit from every node, and a later
upgrade leaves it out.
*/}}
{{- define "nmi.bootGuardAction" -}}
{{- if include "nmi.isOn" .Values.uninstall.openNodes -}}
{{- else if include "nmi.isOn" .Values.bootGuard.enabled }}guard-boot
{{- else -}}
{{- with lookup "apps/v1" "DaemonSet" .Release.Namespace (printf "%s-boot-guard" (include "nmi.name" .)) -}}
{{- $removes := has "unguard-boot" (first .spec.template.spec.initContainers).args -}}
{{- $isCurrent := eq (toString .status.observedGeneration) (toString .metadata.generation) -}}
{{- $isDone := and $removes $isCurrent (eq (toString .status.numberReady) (toString .status.desiredNumberScheduled)) -}}
{{- if not $isDone }}unguard-boot{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Deployment that writes status conditions, and its account. */}}
{{- define "nmi.conditions" -}}
{{ include "nmi.name" . }}-conditions
{{- end -}}

{{/* Of its pods. They have none of the labels by which agents are selected. */}}
{{- define "nmi.conditionsSelector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | quote }}
app.kubernetes.io/component: conditions
{{- end -}}

{{/* Of both agents that a node has during an update, with a blank between. */}}
{{- define "nmi.agentPorts" -}}
{{- $port := include "nmi.given" .Values.nmi.port | default "2579" | int -}}
{{ $port }} {{ add $port 1 }}
{{- end -}}

{{/*
Whether the options let two agents run on one node during an update: "true" or nothing. The host token's port on
127.0.0.1 is one, the startup probe asks at the explain socket, and one container has no folder for slots.
*/}}
{{- define "nmi.maySurge" -}}
{{- $strategy := .Values.nmi.updateStrategy | default dict -}}
{{- $surge := get ($strategy.rollingUpdate | default dict) "maxSurge" -}}
{{- $isRefused := or (eq $strategy.type "OnDelete") (has (toString $surge) (list "0" "0%")) -}}
{{- $isAlone := or (include "nmi.isOn" .Values.nmi.enableHostToken) (eq (toString .Values.nmi.explainSocket) "off") -}}
{{- if and (include "nmi.isSplit" .) (not $isRefused) (not $isAlone) }}true{{ end -}}
{{- end -}}

{{/*
Whether the agents that run have the same redirect: "true" or nothing, and nothing where no cluster can be asked. Two
redirects cannot be on one node, and the one of an agent that has not been updated itself is not known.
Where none is installed there is nobody to be refused: restarts, and a rollback to this installation, then refuse no
request either. A namespace that can be asked has the account "default".
*/}}
{{- define "nmi.hasSameRedirect" -}}
{{- $installed := lookup "apps/v1" "DaemonSet" .Release.Namespace (include "nmi.name" .) -}}
{{- if and (not $installed) (lookup "v1" "ServiceAccount" .Release.Namespace "default") }}true{{ end -}}
{{- with $installed -}}
{{- $isRolledOut := and (eq (toString .status.observedGeneration) (toString .metadata.generation)) (eq (toString (.status.updatedNumberScheduled | default 0)) (toString (.status.desiredNumberScheduled | default 0))) -}}
{{- range .spec.template.spec.containers -}}
{{- if and $isRolledOut (eq .name "redirect") -}}
{{- $env := dict -}}
{{- range .env }}{{ $_ := set $env .name (.value | default "") }}{{ end -}}
{{- if eq (get $env "NMI_REDIRECT" | default "auto") (include "nmi.redirect" $) }}true{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How many nodes at once, and whether the new agent of a node starts beside the old one. */}}
{{- define "nmi.rollingUpdate" -}}
{{- $given := (.Values.nmi.updateStrategy | default dict).rollingUpdate | default dict -}}
{{- $nodes := get $given "maxUnavailable" | default 1 -}}
{{- $surge := get $given "maxSurge" -}}
{{- if and (include "nmi.maySurge" .) (or $surge (include "nmi.hasSameRedirect" .)) -}}
{ maxUnavailable: 0, maxSurge: {{ $surge | default $nodes }} }
{{- else -}}
{ maxUnavailable: {{ $nodes }}, maxSurge: 0 }
{{- end -}}
{{- end -}}

{{/*
The old agent of this release, if it is one of aad-pod-identity's chart: Helm would delete it before the new one
is ready, and it opens its node when it ends.
*/}}
{{- define "nmi.checkOldRelease" -}}
{{- $fullname := .Release.Name -}}
{{- if not (contains "aad-pod-identity" $fullname) }}{{ $fullname = printf "%s-aad-pod-identity" $fullname }}{{ end -}}
{{- with lookup "apps/v1" "DaemonSet" .Release.Namespace (printf "%s-nmi" $fullname) -}}
{{- if hasPrefix "aad-pod-identity-" (get (.metadata.labels | default dict) "helm.sh/chart") -}}
{{- fail (printf "release %s runs the NMI of aad-pod-identity, which opens its nodes when it ends: install this chart beside it, as another release (docs/upgrade.md)" $.Release.Name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether all labels of the one are in the other: "true" or nothing. */}}
{{- define "nmi.isWithin" -}}
{{- $other := .other -}}
{{- $missing := list -}}
{{- range $name, $value := .labels }}{{ if ne (get $other $name) $value }}{{ $missing = append $missing $name }}{{ end }}{{ end -}}
{{- if not $missing }}true{{ end -}}
{{- end -}}

{{/*
There is one agent a node: a second one would find its ports taken, or take pods from the first. Two releases have nodes in
common if nothing but a node selector tells them apart, and every label of the one is the other's too. That of
aad-pod-identity may be there.
*/}}
{{- define "nmi.checkNodes" -}}
{{- $own := .Values.nmi -}}
{{- $selector := $own.nodeSelector | default dict -}}
{{- range (lookup "apps/v1" "DaemonSet" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $isOfThisChart := or (hasPrefix "entra-pod-identity-" (get $labels "helm.sh/chart")) (eq (get $labels "app.kubernetes.io/name") "entra-pod-identity") -}}
{{- $pod := .spec.template -}}
{{- $isAgent := and $isOfThisChart (eq (get ($pod.metadata.labels | default dict) "app.kubernetes.io/component") "nmi") -}}
{{- if and $isAgent (ne .metadata.name (include "nmi.name" $)) (eq (toJson ($pod.spec.affinity | default dict)) (toJson ($own.affinity | default dict))) -}}
{{- $theirs := $pod.spec.nodeSelector | default dict -}}
{{- if or (include "nmi.isWithin" (dict "labels" $theirs "other" $selector)) (include "nmi.isWithin" (dict "labels" $selector "other" $theirs)) -}}
{{- fail (printf "DaemonSet %s runs agents on the same nodes, and a node has one: give each release its own by nmi.nodeSelector and nmi.affinity (docs/install.md, Try it on one node pool first), or uninstall the other one" .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Whether the agents act as their own nodes: "true" or nothing. By constrained impersonation, which API servers have on by
default from 1.36; the server then holds each agent to its node. Without a cluster, `--kube-version` says what it is.
*/}}
{{- define "nmi.actsAsNode" -}}
{{- if semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- end -}}

{{/* Audiences of the Azure clouds and of identity bindings of AKS, and the one of --entra-audience, as a list. */}}
{{- define "nmi.audiences" -}}
{{- $audiences := list "api://AzureADTokenExchange" "api://AzureADTokenExchangeUSGov" "api://AzureADTokenExchangeChina" "api://AzureADTokenExchangeUSNat" "api://AzureADTokenExchangeUSSec" "api://AKSIdentityBinding" -}}
{{- with .Values.nmi.entraAudience }}{{ $audiences = append $audiences . | uniq }}{{ end -}}
{{- toJson $audiences -}}
{{- end -}}

{{/* What the schema cannot say in words that help. */}}
{{- define "nmi.check" -}}
{{- include "nmi.checkOldRelease" . }}
{{- include "nmi.checkNodes" . }}
{{- with .Values }}
{{- if contains "oss/azure/aad-pod-identity" (toString .image.repository) }}
{{- fail "image.repository names the image of aad-pod-identity; this chart runs another program: build and push deploy/Dockerfile and name that image" }}
{{- end }}
{{- if and (include "nmi.isOn" .rbac.enabled) (include "nmi.isOn" .nmi.workloadIdentity) (not (include "nmi.isOn" .rbac.allowFederation)) }}
{{- fail "nmi.workloadIdentity needs rbac.allowFederation: it makes tokens of service accounts" }}
{{- end }}
{{- if and (include "nmi.isOn" .rbac.enabled) (include "nmi.isOn" .rbac.allowFederation) (not .rbac.federationNamespaces) (not (include "nmi.actsAsNode" $)) }}
{{- fail (printf "rbac.allowFederation needs rbac.federationNamespaces on Kubernetes %s: before 1.36 the API server cannot hold an agent to the pods of its node, so an agent that is taken over could act as every service account of the cluster. List the namespaces that use it (with identities of `federation: node` the agent's own too); without a cluster, name its version by --kube-version" $.Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and (include "nmi.isOn" .rbac.enabled) (include "nmi.isOn" .rbac.allowAccessToSecrets) (not .rbac.secretsNamespaces) }}
{{- fail "rbac.allowAccessToSecrets needs rbac.secretsNamespaces: list the namespaces whose AzureIdentities name a Secret (kubectl get azureidentities -A), or an agent that is taken over could read the Secrets of all" }}
{{- end }}
{{- end }}
{{- if eq (include "nmi.redirect" .) "address" }}
{{- fail "nmi.redirect=address is no mode any more: set auto, ebpf or iptables, which serve a node without a metadata service too; nothing else has to change" }}
{{- end }}
{{- if has (include "nmi.probePort" .) (include "nmi.agentPorts" . | splitList " ") }}
{{- fail "nmi.probePort must differ from nmi.port and the next one, which every pod can reach" }}
{{- end }}
{{- if eq (include "nmi.redirect" .) "pinned" }}
{{- fail "nmi.redirect=pinned is what nmi.privilegeSplit sets: another container has to keep it" }}
{{- end }}
{{- if include "nmi.isSplit" . }}
{{- $kernel := dict "Values" (include "nmi.kernelValues" . | fromYaml) }}
{{- range $port := list (include "nmi.probePort" $kernel) (include "nmi.metricsPort" $kernel) }}
{{- if and (ne $port "0") (has $port (concat (list (include "nmi.probePort" $) (include "nmi.metricsPort" $)) (include "nmi.agentPorts" $ | splitList " "))) }}
{{- fail (printf "port %s is given to both containers of nmi.privilegeSplit" $port) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq (include "nmi.metricsPort" .) "0") (or (include "nmi.isOn" .Values.podMonitor.enabled) (include "nmi.isOn" .Values.serviceMonitor.enabled) (include "nmi.isOn" .Values.prometheusRule.enabled)) }}
{{- fail "podMonitor, serviceMonitor and prometheusRule need the metrics page: nmi.prometheusPort is 0" }}
{{- end }}
{{- end -}}

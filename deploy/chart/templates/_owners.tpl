{{/*
--identity-owners, or nothing, which is the agent's default.
1. The value, or the variable in nmi.env, which the status conditions follow too: an update never overrules it.
2. The mode of the agent that is installed: an update never changes it.
3. Without one, where agents of other releases are: `enforce` if all of them have it. Anybody may have made a DaemonSet
   that looks like one, so no other mode is taken from there.
4. `enforce` in a cluster that uses no identities yet: nothing is refused there that is served today.
Where no cluster can be looked up (`helm template`), 2 to 4 find nothing.
*/}}
{{- define "nmi.identityOwners" -}}
{{- $given := include "nmi.given" .Values.nmi.identityOwners -}}
{{- $isInEnv := false -}}
{{- range .Values.nmi.env }}{{ if eq .name "NMI_IDENTITY_OWNERS" }}{{ $isInEnv = true }}{{ $given = $given | default (get . "value") }}{{ end }}{{ end -}}
{{- if or (ne $given "") $isInEnv }}{{ $given -}}
{{- else -}}
{{- $installed := lookup "apps/v1" "DaemonSet" .Release.Namespace (include "nmi.name" .) -}}
{{- /* The Deployment has the mode too, should somebody have deleted the DaemonSet. */ -}}
{{- if not $installed }}{{ $installed = lookup "apps/v1" "Deployment" .Release.Namespace (include "nmi.conditions" .) }}{{ end -}}
{{- if $installed }}{{ include "nmi.ownersOf" $installed -}}
{{- else -}}
{{- $all := lookup "apps/v1" "DaemonSet" "" "" -}}
{{- $modes := list -}}
{{- range $all.items -}}
{{- if or (regexMatch "(^|-)nmi$" .metadata.name) (eq (get (.spec.template.metadata.labels | default dict) "component") "nmi") -}}
{{- $modes = append $modes (include "nmi.ownersOf" .) -}}
{{- end -}}
{{- end -}}
{{- if $modes }}{{ if not (without $modes "enforce") }}enforce{{ end -}}
{{- else if and $all (include "nmi.isNewCluster" .) }}enforce
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The mode that a workload's containers have by flag or variable. That which opens nodes has the agent's flags. */}}
{{- define "nmi.ownersOf" -}}
{{- $mode := "" -}}
{{- range concat (.spec.template.spec.initContainers | default list) .spec.template.spec.containers -}}
{{- $words := join " " .args -}}
{{- range .env }}{{ if eq .name "NMI_IDENTITY_OWNERS" }}{{ $words = printf "%s --identity-owners=%s" $words (.value | default "") }}{{ end }}{{ end -}}
{{- $flag := regexFind "--identity-owners[= ](off|warn|enforce)" $words -}}
{{- $mode = $mode | default (regexFind "[a-z]+$" $flag) -}}
{{- end -}}
{{- $mode -}}
{{- end -}}

{{/*
Whether nobody gets a token by an identity or an exception, this release's aside: "true" or nothing. The kind of the
grants must be there, or the exception of this release would count no longer.
*/}}
{{- define "nmi.isNewCluster" -}}
{{- $api := "aadpodidentity.k8s.io/v1" -}}
{{- $hasGrants := .Capabilities.APIVersions.Has (printf "%s/AzureIdentityGrant" $api) -}}
{{- if and $hasGrants (not .Values.azureIdentities) -}}
{{- $identities := (lookup $api "AzureIdentity" "" "").items -}}
{{- $others := list -}}
{{- range (lookup $api "AzurePodIdentityException" "" "").items -}}
{{- if or (ne .metadata.namespace "kube-system") (ne .metadata.name (include "nmi.exception" $)) -}}
{{- $others = append $others .metadata.name -}}
{{- end -}}
{{- end -}}
{{- if not (or $identities $others) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Made by scripts/chart-schema.ts from the options table; not to be edited. */}}
{{- define "nmi.flags" -}}
{{- include "nmi.flag" (dict "flag" "--allow-network-plugin-kubenet" "value" .Values.nmi.allowNetworkPluginKubenet) }}
{{- include "nmi.flag" (dict "flag" "--kubelet-config" "value" .Values.nmi.kubeletConfig) }}
{{- include "nmi.flag" (dict "flag" "--custom-user-agent" "value" .Values.customUserAgent) }}
{{- include "nmi.flag" (dict "flag" "--address-staleness-limit" "value" .Values.nmi.addressStalenessLimit "name" "nmi.addressStalenessLimit" "kind" "duration" "min" 10000 "max" 86400000 "allowed" "a duration from 10s to 24h, or 0") }}
{{- include "nmi.flag" (dict "flag" "--rights-staleness-limit" "value" .Values.nmi.rightsStalenessLimit "name" "nmi.rightsStalenessLimit" "kind" "duration" "min" 10000 "max" 604800000 "allowed" "a duration from 10s to 168h, or 0") }}
{{- include "nmi.flag" (dict "flag" "--nmi-listen-address" "value" .Values.nmi.listenAddress) }}
{{- include "nmi.flag" (dict "flag" "--nmi-port" "value" .Values.nmi.port "name" "nmi.port" "kind" "integer" "min" 1 "max" 65534 "allowed" "a whole number from 1 to 65534") }}
{{- include "nmi.flag" (dict "flag" "--enable-host-token" "value" .Values.nmi.enableHostToken) }}
{{- include "nmi.flag" (dict "flag" "--redirect" "value" .Values.nmi.redirect) }}
{{- include "nmi.flag" (dict "flag" "--ipt-update-interval-sec" "value" .Values.nmi.ipTableUpdateTimeIntervalInSeconds "name" "nmi.ipTableUpdateTimeIntervalInSeconds" "kind" "integer" "min" 1 "max" 3600 "allowed" "a whole number from 1 to 3600") }}
{{- include "nmi.flag" (dict "flag" "--host-network" "value" .Values.nmi.hostNetwork) }}
{{- include "nmi.flag" (dict "flag" "--unrecorded-callers" "value" .Values.nmi.unrecordedCallers) }}
{{- include "nmi.flag" (dict "flag" "--metadata-header-required" "value" .Values.nmi.metadataHeaderRequired) }}
{{- include "nmi.flag" (dict "flag" "--block-instance-metadata" "value" .Values.nmi.blockInstanceMetadata) }}
{{- include "nmi.flag" (dict "flag" "--allow-metadata" "value" .Values.nmi.allowMetadata) }}
{{- include "nmi.flag" (dict "flag" "--strict-identity" "value" .Values.nmi.strictIdentity) }}
{{- include "nmi.flag" (dict "flag" "--identity-owners" "value" .Values.nmi.identityOwners) }}
{{- include "nmi.flag" (dict "flag" "--metadata-ip" "value" .Values.nmi.metadataIp) }}
{{- include "nmi.flag" (dict "flag" "--metadata-port" "value" .Values.nmi.metadataPort "name" "nmi.metadataPort" "kind" "integer" "min" 1 "max" 65535 "allowed" "a whole number from 1 to 65535") }}
{{- include "nmi.flag" (dict "flag" "--workload-identity" "value" .Values.nmi.workloadIdentity) }}
{{- include "nmi.flag" (dict "flag" "--workload-identity-tenant" "value" .Values.nmi.workloadIdentityTenant) }}
{{- include "nmi.flag" (dict "flag" "--cloud" "value" .Values.nmi.cloud) }}
{{- include "nmi.flag" (dict "flag" "--entra-authority" "value" .Values.nmi.entraAuthority) }}
{{- include "nmi.flag" (dict "flag" "--entra-audience" "value" .Values.nmi.entraAudience) }}
{{- include "nmi.flag" (dict "flag" "--entra-ca-file" "value" .Values.nmi.entraCaFile) }}
{{- include "nmi.flag" (dict "flag" "--aks-cluster-id" "value" .Values.nmi.aksClusterId) }}
{{- include "nmi.flag" (dict "flag" "--http-probe-port" "value" .Values.nmi.probePort "name" "nmi.probePort" "kind" "integer" "min" 0 "max" 65535 "allowed" "a whole number from 0 to 65535") }}
{{- include "nmi.flag" (dict "flag" "--prometheus-port" "value" .Values.nmi.prometheusPort "name" "nmi.prometheusPort" "kind" "integer" "min" 0 "max" 65535 "allowed" "a whole number from 0 to 65535") }}
{{- include "nmi.flag" (dict "flag" "--prometheus-address" "value" .Values.nmi.prometheusAddress) }}
{{- include "nmi.flag" (dict "flag" "--old-metrics" "value" .Values.nmi.oldMetrics) }}
{{- include "nmi.flag" (dict "flag" "--identity-metrics" "value" .Values.nmi.identityMetrics) }}
{{- include "nmi.flag" (dict "flag" "--log-format" "value" .Values.nmi.loggingFormat) }}
{{- include "nmi.flag" (dict "flag" "--log-level" "value" .Values.nmi.logLevel) }}
{{- include "nmi.flag" (dict "flag" "-v" "value" .Values.nmi.logVerbosity "name" "nmi.logVerbosity" "kind" "integer" "min" 0 "max" 10 "allowed" "a whole number from 0 to 10") }}
{{- include "nmi.flag" (dict "flag" "--events" "value" .Values.nmi.events) }}
{{- include "nmi.flag" (dict "flag" "--audit-log" "value" .Values.nmi.auditLog) }}
{{- include "nmi.flag" (dict "flag" "--startup-taint" "value" .Values.nmi.startupTaint) }}
{{- include "nmi.flag" (dict "flag" "--iptables-backend" "value" .Values.nmi.iptablesBackend) }}
{{- include "nmi.flag" (dict "flag" "--metadata-guard" "value" .Values.nmi.metadataGuard) }}
{{- include "nmi.flag" (dict "flag" "--fast-path" "value" .Values.nmi.fastPath) }}
{{- include "nmi.flag" (dict "flag" "--enable-conntrack-deletion" "value" .Values.nmi.enableConntrackDeletion) }}
{{- include "nmi.flag" (dict "flag" "--set-retry-after-header" "value" .Values.nmi.setRetryAfterHeader) }}
{{- include "nmi.flag" (dict "flag" "--MICNamespace" "value" .Values.nmi.micNamespace) }}
{{- include "nmi.flag" (dict "flag" "--pods-from" "value" .Values.nmi.podsFrom) }}
{{- include "nmi.flag" (dict "flag" "--enableScaleFeatures" "value" .Values.nmi.enableScaleFeatures) }}
{{- include "nmi.flag" (dict "flag" "--retry-attempts-for-created" "value" .Values.nmi.retryAttemptsForCreated) }}
{{- include "nmi.flag" (dict "flag" "--retry-attempts-for-assigned" "value" .Values.nmi.retryAttemptsForAssigned) }}
{{- include "nmi.flag" (dict "flag" "--find-identity-retry-interval" "value" .Values.nmi.findIdentityRetryIntervalInSeconds) }}
{{- end -}}
{{- define "nmi.conditionsFlags" -}}
{{- include "nmi.flag" (dict "flag" "--custom-user-agent" "value" .Values.customUserAgent) }}
{{- include "nmi.flag" (dict "flag" "--identity-owners" "value" .Values.nmi.identityOwners) }}
{{- include "nmi.flag" (dict "flag" "--cloud" "value" .Values.nmi.cloud) }}
{{- include "nmi.flag" (dict "flag" "--entra-authority" "value" .Values.nmi.entraAuthority) }}
{{- include "nmi.flag" (dict "flag" "--entra-audience" "value" .Values.nmi.entraAudience) }}
{{- include "nmi.flag" (dict "flag" "--log-format" "value" .Values.nmi.loggingFormat) }}
{{- include "nmi.flag" (dict "flag" "--log-level" "value" .Values.nmi.logLevel) }}
{{- include "nmi.flag" (dict "flag" "-v" "value" .Values.nmi.logVerbosity "name" "nmi.logVerbosity" "kind" "integer" "min" 0 "max" 10 "allowed" "a whole number from 0 to 10") }}
{{- include "nmi.flag" (dict "flag" "--max-watch-events-per-sec" "value" .Values.conditions.maxWatchEventsPerSec "name" "conditions.maxWatchEventsPerSec" "kind" "integer" "min" 1 "max" 1000000 "allowed" "a whole number from 1 to 1000000") }}
{{- end -}}

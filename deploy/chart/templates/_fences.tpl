{{/*
Admission policies that hold an agent to its node where RBAC cannot: all agents share one account, and the API server
knows the node of each from the agent's token. Kubernetes has them from 1.30 on.
*/}}
{{- define "nmi.hasPolicies" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- end -}}

{{- define "nmi.fenceNames" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ include "nmi.name" .root }}-{{ .name }}
  labels:
    {{- include "nmi.labels" .root | nindent 4 }}
{{- end -}}

{{/* Nobody else comes in its way: every kubelet asks for tokens and writes its node all the time. */}}
{{- define "nmi.isTheAgent" -}}
- name: is-the-agent
  expression: >-
    request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "nmi.serviceAccount" . }}'
{{- end -}}

{{/*
Around the right to make tokens, before Kubernetes 1.36. It is evaluated once for each pod of the request's namespace.
A pod that the API server does not know yet is not among them, so it does not replace the list of namespaces.
*/}}
{{- define "nmi.tokenFence" -}}
{{- $account := include "nmi.serviceAccount" . -}}
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicy" "name" "fence-token-requests") }}
spec:
  failurePolicy: Fail
  paramKind: { apiVersion: v1, kind: Pod }
  matchConstraints:
    resourceRules:
      - apiGroups: ['']
        apiVersions: [v1]
        operations: [CREATE]
        resources: [serviceaccounts/token]
  matchConditions:
    {{- include "nmi.isTheAgent" . | nindent 4 }}
  variables:
    - name: audiences
      expression: object.spec.?audiences.orValue([])
    - name: bound
      expression: dyn(object).spec.?boundObjectRef.orValue({})
    - name: uid
      expression: variables.bound.?uid.orValue('')
  validations:
    - expression: >-
        size(variables.audiences) == 1 && variables.audiences[0] in {{ include "nmi.audiences" . | replace "\"" "'" }}
      messageExpression: >-
        'the agent may make tokens for the exchange at Entra ID only, not for the audience '
        + (size(variables.audiences) == 0 ? 'of the API server' : variables.audiences.join(', '))
      reason: Forbidden
    # The API server itself sees to it that the pod runs under the service account.
    - expression: >-
        variables.bound.?kind.orValue('') == 'Pod' && variables.bound.?name.orValue('') != '' && variables.uid != ''
      message: the agent may make tokens only that are bound to a pod by its name and uid
      reason: Forbidden
    - expression: >-
        params.metadata.uid != variables.uid || params.spec.?nodeName.orValue('')
        in request.userInfo.?extra[?'authentication.kubernetes.io/node-name'].orValue([])
      message: the agent may make tokens for pods of its own node only
      reason: Forbidden
    # Of its own account, and so of all other agents: for its own pod only.
    - expression: >-
        !(request.namespace == '{{ .Release.Namespace }}' && request.name == '{{ $account }}')
        || variables.uid in request.userInfo.?extra[?'authentication.kubernetes.io/pod-uid'].orValue([])
      message: the agent may make tokens of its own service account for its own pod only
      reason: Forbidden
    - expression: object.spec.?expirationSeconds.orValue(3600) <= 3600
      message: the agent may make tokens for an hour at most
      reason: Forbidden
---
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicyBinding" "name" "fence-token-requests") }}
spec:
  policyName: {{ include "nmi.name" . }}-fence-token-requests
  paramRef: { selector: {}, parameterNotFoundAction: Deny }
  validationActions: [Deny]
{{- end -}}

{{/* Around the rights to write Events and to take the startup taint off a node. */}}
{{- define "nmi.nodeFence" -}}
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicy" "name" "hold-to-node") }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [events.k8s.io]
        apiVersions: ['*']
        operations: [CREATE]
        resources: [events]
      - apiGroups: ['']
        apiVersions: [v1]
        operations: [UPDATE]
        resources: [nodes]
  matchConditions:
    {{- include "nmi.isTheAgent" . | nindent 4 }}
  variables:
    - name: nodes
      expression: request.userInfo.?extra[?'authentication.kubernetes.io/node-name'].orValue([])
  validations:
    - expression: request.resource.resource != 'events' || object.?reportingInstance.orValue('') in variables.nodes
      message: the agent may write Events in the name of its own node only
      reason: Forbidden
    - expression: >-
        request.resource.resource != 'events' || object.?regarding.?kind.orValue('') in ['Pod', 'AzureIdentity']
      message: the agent may write Events about pods and identities only
      reason: Forbidden
    - expression: request.resource.resource != 'nodes' || request.name in variables.nodes
      message: the agent may change its own node only
      reason: Forbidden
    {{- with .Values.nmi.startupTaint }}
    - expression: >-
        request.resource.resource != 'nodes'
        || (object.metadata.?labels == oldObject.metadata.?labels
        && object.metadata.?annotations == oldObject.metadata.?annotations
        && object.spec.?unschedulable == oldObject.spec.?unschedulable
        && object.spec.?taints.orValue([]).all(taint, taint in oldObject.spec.?taints.orValue([]))
        && oldObject.spec.?taints.orValue([]).all(taint, taint.key == '{{ . }}' || taint in object.spec.?taints.orValue([])))
      message: the agent may take the startup taint off its node, and change nothing else
      reason: Forbidden
    {{- end }}
---
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicyBinding" "name" "hold-to-node") }}
spec:
  policyName: {{ include "nmi.name" . }}-hold-to-node
  validationActions: [Deny]
{{- end -}}

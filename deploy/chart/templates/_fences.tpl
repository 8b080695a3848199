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
Around the right to make tokens. From Kubernetes 1.36 the agent asks as its own node, and the API server sees to the pod
and the audience, but not to how long the token lives: Entra ID would take one after its pod, its node and the agent are
gone. Such a request shows no more of the agent than its node's name. Other than a kubelet's it has nothing of a
credential in `extra`. The right to the audiences is the kubelets' too, and a day is the longest that the webhook of
Workload Identity writes into a pod.
Before 1.36 it is evaluated once for each pod of the request's namespace, by a binding of its own, and once without a pod. A
pod that the API server does not know yet is not among them, so it does not replace the list of namespaces. With the
action Deny nobody could make a token in a namespace without pods: the API server looks for them before the conditions.
*/}}
{{- define "nmi.tokenFence" -}}
{{- $account := include "nmi.serviceAccount" . -}}
{{- $actsAsNode := include "nmi.actsAsNode" . -}}
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicy" "name" "fence-token-requests") }}
spec:
  failurePolicy: Fail
  {{- if not $actsAsNode }}
  paramKind: { apiVersion: v1, kind: Pod }
  {{- end }}
  matchConstraints:
    resourceRules:
      - apiGroups: ['']
        apiVersions: [v1]
        operations: [CREATE]
        resources: [serviceaccounts/token]
  matchConditions:
    {{- if $actsAsNode }}
    - name: is-the-agent-or-a-node
      expression: >-
        request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ $account }}'
        || 'system:nodes' in request.userInfo.groups
    {{- else }}
    {{- include "nmi.isTheAgent" . | nindent 4 }}
    {{- end }}
  variables:
    - name: audiences
      expression: object.spec.?audiences.orValue([])
    - name: seconds
      expression: object.spec.?expirationSeconds.orValue(3600)
  {{- if $actsAsNode }}
    - name: isKubelet
      expression: >-
        'system:nodes' in request.userInfo.groups && size(request.userInfo.?extra.orValue({})) > 0
    - name: isForEntra
      expression: >-
        variables.audiences.exists(each, each in {{ include "nmi.audiences" . | replace "\"" "'" }})
  validations:
    - expression: variables.isKubelet || variables.seconds <= 3600
      message: the agent may make tokens for an hour at most
      reason: Forbidden
    - expression: '!(variables.isKubelet && variables.isForEntra) || variables.seconds <= 86400'
      message: a kubelet may make tokens for Entra ID for a day at most; the pod has a volume with a longer expirationSeconds
      reason: Forbidden
  {{- else }}
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
        params == null || params.metadata.uid != variables.uid || params.spec.?nodeName.orValue('')
        in request.userInfo.?extra[?'authentication.kubernetes.io/node-name'].orValue([])
      message: the agent may make tokens for pods of its own node only
      reason: Forbidden
    # Of its own account, and so of all other agents: for its own pod only.
    - expression: >-
        !(request.namespace == '{{ .Release.Namespace }}' && request.name == '{{ $account }}')
        || variables.uid in request.userInfo.?extra[?'authentication.kubernetes.io/pod-uid'].orValue([])
      message: the agent may make tokens of its own service account for its own pod only
      reason: Forbidden
    - expression: variables.seconds <= 3600
      message: the agent may make tokens for an hour at most
      reason: Forbidden
  {{- end }}
---
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicyBinding" "name" "fence-token-requests") }}
spec:
  policyName: {{ include "nmi.name" . }}-fence-token-requests
  validationActions: [Deny]
{{- if not $actsAsNode }}
---
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicyBinding" "name" "fence-token-requests-by-pod") }}
spec:
  policyName: {{ include "nmi.name" . }}-fence-token-requests
  paramRef: { selector: {}, parameterNotFoundAction: Allow }
  validationActions: [Deny]
{{- end }}
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
    - name: isEvent
      expression: request.resource.resource == 'events'
    - name: nodes
      expression: request.userInfo.?extra[?'authentication.kubernetes.io/node-name'].orValue([])
    # The objects of an Event; the second is optional.
    - name: about
      expression: '[dyn(object).?regarding.orValue({}), dyn(object).?related.orValue({})]'
    # Of a Node: the maps that must stay as they are, and their fields that may differ. The API server itself takes the
    # status from the old one.
    - name: pairs
      expression: >-
        [{'now': dyn(object), 'old': dyn(oldObject), 'but': dyn(['metadata', 'spec'])},
        {'now': dyn(object.metadata), 'old': dyn(oldObject.metadata), 'but': dyn(['managedFields', 'resourceVersion', 'generation'])},
        {'now': dyn(object).?spec.orValue({}), 'old': dyn(oldObject).?spec.orValue({}), 'but': dyn(['taints'])}]
    - name: taints
      expression: dyn(object).?spec.?taints.orValue([])
    - name: oldTaints
      expression: dyn(oldObject).?spec.?taints.orValue([])
  validations:
    - expression: >-
        !variables.isEvent || (object.?reportingController.orValue('') == 'entra-pod-identity/nmi'
        && object.?reportingInstance.orValue('') in variables.nodes)
      message: the agent may write Events in its own name and that of its own node only
      reason: Forbidden
    - expression: >-
        !variables.isEvent || (variables.about[0] != {} && variables.about.all(each, each == {}
        || [each.?apiVersion.orValue(''), each.?kind.orValue('')]
        in [['v1', 'Pod'], ['aadpodidentity.k8s.io/v1', 'AzureIdentity']]))
      message: the agent may write Events about pods and identities only
      reason: Forbidden
    # The API server bounds the other texts, note among them to 1 kB.
    - expression: >-
        !variables.isEvent || (!has(dyn(object).series)
        && dyn(object.metadata).all(key, key in ['name', 'namespace', 'uid', 'creationTimestamp', 'managedFields'])
        && variables.about.all(each, each.all(key,
        key in ['apiVersion', 'kind', 'namespace', 'name', 'uid'] && size(each[key]) <= 253)))
      message: the agent may write Events without labels, annotations and a series, and names of usual length
      reason: Forbidden
    # The API server writes one entry, of the fields that the Event has.
    - expression: >-
        !variables.isEvent || size(dyn(object.metadata).?managedFields.orValue([])) <= 2
        && dyn(object.metadata).?managedFields.orValue([]).all(each, size(each.?fieldsV1.orValue({})) <= 32
        && each.?fieldsV1.orValue({}).all(key, size(key) <= 32 && each.fieldsV1[key] == {}))
      message: the agent may write Events whose managedFields the API server makes
      reason: Forbidden
    - expression: variables.isEvent || request.name in variables.nodes
      message: the agent may change its own node only
      reason: Forbidden
    - expression: >-
        variables.isEvent || (variables.taints.all(each, each in variables.oldTaints)
        && variables.oldTaints.all(each, each.key == '{{ .Values.nmi.startupTaint }}' || each in variables.taints)
        && variables.pairs.all(each,
        each.now.all(key, key in each.but || (key in each.old && each.now[key] == each.old[key]))
        && each.old.all(key, key in each.but || key in each.now)))
      message: the agent may take the startup taint off its node, and change nothing else
      reason: Forbidden
---
{{ include "nmi.fenceNames" (dict "root" . "kind" "ValidatingAdmissionPolicyBinding" "name" "hold-to-node") }}
spec:
  policyName: {{ include "nmi.name" . }}-hold-to-node
  validationActions: [Deny]
{{- end -}}

/** What people see: metrics, explanations, the command line. */
import type { Faults } from '../mutation.ts';

export const tools: Faults = {
  'src/nmi/conditions/condition.ts': [
    ['conditions of other programs are removed', 'places.toReversed().map(', 'places.map('],
    ['a list of conditions makes a patch grow', 'if (places.length === maxOwn) break;', ''],
  ],
  'src/nmi/conditions/condition-writer.ts': [
    [
      'the right to a kind is missing, and each of its objects is tried',
      "if (outcome === 'forbidden') await this.#right.check(kind, this.#call());",
      '',
    ],
    [
      'a failure for one object is taken for an outage',
      "return error.code === 'TIMEOUT' || (error.status !== undefined && error.status >= 500);",
      'return false;',
    ],
  ],
  'src/nmi/conditions/refused-writes.ts': [
    [
      'a refused object is tried without a pause',
      'return refused?.isWaiting === true && refused.write === write;',
      'return false;',
    ],
    ['a changed object waits like the refused one', ' && refused.write === write;', ';'],
    [
      'deleted objects stay in memory',
      'for (const key of this.#refused.keys()) if (!exists(key)) this.#refused.delete(key);',
      '',
    ],
  ],
  'src/nmi/conditions/status-right.ts': [
    [
      'what the server does not confirm is a right',
      "?.['allowed'] === true",
      "?.['allowed'] !== false",
    ],
  ],
  'src/nmi/telemetry/audit/record.ts': [
    [
      'an object id is in the audit as the caller wrote it',
      "loggableId({ kind: 'object_id', value: authorization.objectId })",
      '`object_id ${authorization.objectId}`',
    ],
  ],
  'src/nmi/telemetry/bounded-label.ts': [
    [
      'pods make the page of metrics grow',
      "if (this.#known.size >= this.#max || value.length > 255) return 'other';",
      '',
    ],
    [
      'a resource as a pod wrote it is a label',
      "knownResources.has(trimmed) ? trimmed : 'other'",
      'trimmed',
    ],
  ],
  'src/nmi/telemetry/request-counts.ts': [
    ['hits are counted again at every scrape', 'count.hits = 0;', ''],
    [
      'identities of one namespace make the page grow',
      'new BoundedLabel(maxOfNamespace)',
      'new BoundedLabel(Infinity)',
    ],
    [
      'identities of all namespaces make the page grow',
      "isOther ? 'other' : name",
      "name === 'other' ? 'other' : name",
    ],
  ],
  'src/nmi/telemetry/export-parts.ts': [
    [
      'what a part no longer shows stays on the page',
      'for (const metric of exported) metrics.clear(metric);',
      '',
    ],
    ['every condition holds', 'problem() === undefined ? 1 : 0', '1'],
  ],
  'src/nmi/telemetry/metrics.ts': [
    [
      'a counter goes down',
      'Math.max(0, total - (totals.get(key) ?? 0))',
      'total - (totals.get(key) ?? 0)',
    ],
    ['a total is counted again at every scrape', 'totals.set(key, total);', ''],
  ],
  'src/nmi/telemetry/preset-series.ts': [
    [
      'an alert has no series before the first failure',
      'for (const value of values) metrics.inc',
      'for (const value of values.slice(0, 1)) metrics.inc',
    ],
  ],
  'src/nmi/explain/hints.ts': [
    [
      'every binding of the namespace is a hint',
      'if (isNearly(binding.selector, label)) sameText.push(binding);',
      'sameText.push(binding);',
    ],
    ['there is a hint for each of fifty', '.slice(0, maxNamed)', ''],
    [
      'an object writes into a terminal',
      'The label ${printable(key)} is not read',
      'The label ${key} is not read',
      'a label that Kubernetes takes is printable already',
    ],
  ],
  'src/cli/agent-socket.ts': [
    ['an agent that is not there is a failure of it', "case 'ENOENT':\n", "case 'ENOENTRY':\n"],
  ],
  'src/cli/demo.ts': [
    [
      'a failure looks like success',
      'return ok ? exitCodes.ok : exitCodes.failed;',
      'return exitCodes.ok;',
    ],
    ['an empty token is one', "text: text === '' ? undefined : text }", 'text }'],
  ],
  'src/cli/flags.ts': [
    [
      'a bare boolean swallows the next word',
      'flag !== undefined && isBoolean(flag) ? `${word}=true` : word',
      'word',
    ],
    ['the first of two flags wins', 'value.at(-1)', 'value.at(0)'],
  ],
  'src/cli/http-get.ts': [
    ['an answer takes all memory', 'if (length > bounds.maxBodyBytes)', 'if (false)'],
  ],
  'src/cli/cli.ts': [
    [
      'a stray word is passed over',
      'return stray === undefined ? undefined : `unknown word "${stray}"`;',
      'return undefined;',
    ],
    [
      'a container whose options are all in the environment prints help',
      " && io.environment['NMI_NODE'] === undefined",
      '',
    ],
    ['a flag is taken for any that looks like it', 'near.edits <= 3', 'near.edits <= 300'],
  ],
  'src/cli/completion.ts': [
    ['hidden flags are offered', '.filter(([, { hidden }]) => hidden !== true)\n    ', ''],
    ['every verb has the flags of the agent', "(verb ?? verbs['run'])", "verbs['run']"],
    ['actions are offered after an action', ': rest.length === 1\n        ?', ': true\n        ?'],
    ['what does not fit is offered', '.filter((candidate) => candidate.startsWith(typed))', ''],
    ['words behind the cursor are completed', ':1:COMP_CWORD}', ':1}'],
  ],
  'src/cli/help.ts': [
    ['lines are longer than the terminal', 'Math.min(columns, maxColumns)', 'maxColumns'],
    ['lines are as long as any terminal', 'Math.min(columns, maxColumns)', 'columns'],
    [
      'an action has the examples of all others',
      'action === undefined || text.startsWith(`nmi ${args}`)',
      'text !== action',
    ],
    ['an action has the summary of its verb', '(actions[action] ?? verb.summary)', 'verb.summary'],
    ['a variable that has a flag is in the list of those without', '!hasFlag(option) && (', '('],
    ['variables without a flag are nowhere', 'environmentHelp(name),', "'',"],
    [
      'help of redirect lists variables that it does not read',
      "(verb === 'run' || option.isOfRedirect === true)",
      'true',
    ],
    ['a default is not shown', '{ defaultDescription: String(shape.default) }', '{}'],
  ],
  'src/cli/reasons.ts': [
    ['an unknown reason is a success', 'return exitCodes.usage;', 'return exitCodes.ok;'],
    ['a reason is taken for any that looks like it', 'near.edits <= 4', 'near.edits <= 400'],
    ['a reason has the status of another', '[reason, status])', '[reason, status && 400])'],
  ],
  'src/cli/run.ts': [
    ['the agent starts on a kubenet node', 'if (kubenet !== undefined) {', 'if (false) {'],
  ],
  'src/nmi/telemetry/refusal-events.ts': [
    [
      'namespace users read what a request says',
      'renderRefusal(withoutCallersText(authorization))',
      'renderRefusal(authorization)',
    ],
    [
      'namespace users read a resource that is a secret',
      'text.replaceAll(resource, loggableResource(resource))',
      'text',
    ],
    ['namespace users read an id that is a secret', "isId ? value : '[unusual]'", 'value'],
    ['the probes of SDKs are Warnings', "  'not_found',\n", ''],
    ['a fault of an Event ends the agent', 'onBug(error);', 'throw error;'],
    [
      'the process behind /host/token is blamed',
      "authorization === undefined && route === 'token'",
      'authorization === undefined',
    ],
  ],
  'src/nmi/telemetry/telemetry.ts': [
    ['hits are counted again at every scrape', 'hits = 0;\n  });', '});'],
    [
      'a line of the log names another pod’s address',
      'known?.podIp === caller.ip ? known',
      'known !== undefined ? known',
    ],
    [
      'a fault of the telemetry ends the agent',
      "log.error({ err: stackOf(error) }, 'failed to record request telemetry');",
      'throw error;',
    ],
    ['a client id is written in full', 'redactClientId(clientId)', 'clientId'],
    [
      'a token in place of a resource is logged',
      'loggableResource(resource),\n        source: source',
      'resource,\n        source: source',
    ],
  ],
  'src/nmi/explain/explain.ts': [
    [
      'a token that a pod put for a resource is shown',
      'const resource = loggableResource(request.resource);',
      'const { resource } = request;',
    ],
    [
      'every failure is told as it came',
      "description: isUsual ? failure.description : '',",
      'description: failure.description,',
    ],
    ['a node of many pods is explained without end', 'all.slice(0, maxPods)', 'all'],
    [
      'a pod without a looked-up caller is granted',
      'const obstacle = pod.hostNetwork ? obstacleOnNode(sight) : obstacleAt(pod, sight);',
      'const obstacle = undefined;',
    ],
    [
      'a failure with a token in hand is an answer',
      'status.cooldownLeftMs === 0 || hasLife(status)',
      'status.cooldownLeftMs === 0',
    ],
    [
      'a failure that is over is an answer',
      'status.cooldownLeftMs === 0 || hasLife(status)',
      'hasLife(status)',
    ],
    [
      'a token that has ended counts',
      'status?.token !== undefined && status.token.expiresInMs > 0',
      'status?.token !== undefined',
    ],
  ],
  'src/nmi/explain/question.ts': [
    [
      'a misspelt parameter is passed over',
      'if (!known.some((each) => each === name)) return',
      'if (false) return',
    ],
    [
      'of two values of a name one is taken',
      'if (given.getAll(name).length > 1) return',
      'if (false) return',
    ],
    [
      'of a pod and an address one is taken',
      'if (pod !== null && ip !== null) return',
      'if (false) return',
    ],
    ['a name has any number of parts', ' || rest.length > 0', ''],
    [
      'a resource without a pod is passed over',
      "who.kind === 'node' && (resource !== null || clientId !== null)",
      'false',
    ],
  ],
  'src/nmi/explain/socket.ts': [
    ['anybody on the node asks', 'uid !== process.geteuid?.() || (mode & 0o022) !== 0', 'false'],
    [
      'anything is an explanation',
      "if (path !== '/explain' && path !== '/ready') {",
      'if (false) {',
    ],
  ],
  'src/cli/explain.ts': [
    ['the text of an object moves a terminal', '/[^\\n\\x20-\\x7e]/g', '/[^\\n\\x20-\\xff]/g'],
    [
      'an agent of another version is explained wrongly',
      'value.schema === explanationSchema',
      'true',
    ],
    [
      'a pod that is not there is a success',
      "body.kind === 'no-pod' ? exitCodes.failed : exitCodes.ok",
      'exitCodes.ok',
    ],
  ],
};

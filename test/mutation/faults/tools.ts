/** What people see: metrics, explanations, the command line. */
import type { Faults } from '../mutation.ts';

export const tools: Faults = {
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
  'src/nmi/telemetry/export-parts.ts': [
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
    [
      'an empty token is one',
      "if (typeof token === 'string' && token !== '') {",
      "if (typeof token === 'string') {",
    ],
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
  'src/cli/redirect.ts': [
    [
      'a stray word is passed over',
      'known === undefined || stray.length > 0',
      'known === undefined',
    ],
  ],
  'src/cli/run.ts': [
    ['the agent starts on a kubenet node', 'if (kubenet !== undefined) {', 'if (false) {'],
  ],
};

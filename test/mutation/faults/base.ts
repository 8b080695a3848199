/** The shared foundation, and the configuration. */
import type { Faults } from '../mutation.ts';

export const base: Faults = {
  'src/nmi/base/answers.ts': [
    [
      'SDKs do not retry: no Retry-After',
      'retryAfterS: Math.max(row.retryAfterS, extra.retryAfterS ?? 0)',
      'retryAfterS: undefined',
    ],
    [
      'clients take a 403 for a node without identities',
      'description.replaceAll(/unreachable/gi, gone)',
      'description',
    ],
    [
      'a pod that is not known yet is refused for good',
      'pod_unknown: { status: 503',
      'pod_unknown: { status: 400',
    ],
  ],
  'src/nmi/base/coded-error.ts': [
    ['the cause of an error is lost', 'cause === undefined ? undefined : { cause }', 'undefined'],
  ],
  'src/nmi/base/deadline.ts': [
    [
      'a caller that gave up is waited for',
      "signal.addEventListener('abort', onAbort, { once: true });",
      '',
    ],
    [
      'a listener is left on a signal that lives on',
      "signal.removeEventListener('abort', onAbort);",
      '',
    ],
    [
      'a deadline that was moved passes when it was first due',
      'disarm();\n      disarm = arm(delayMs);',
      'disarm = arm(delayMs);',
    ],
  ],
  'src/nmi/base/debounce.ts': [
    ['a burst runs the work many times', 'disarm ??= clock', 'disarm = clock'],
    ['the work runs once and never again', 'disarm = undefined;\n        run();', 'run();'],
  ],
  'src/nmi/base/dns-name.ts': [
    ['a path has another in it', "text.split('.').every((each) => part.test(each))", 'true'],
    ['a name may have any length', 'text.length <= 253 && ', ''],
  ],
  'src/nmi/base/expiring-map.ts': [
    ['what has expired is returned', ' || entry.dueAtMs <= this.#clock.monotonicMs()', ''],
    ['a secret stays in memory', 'if (lifeMs !== Infinity) this.#alarms.set(entry, lifeMs);', ''],
    ['it grows without end', 'if (this.#entries.size > this.#max && ', 'if (false && '],
    [
      'a secret comes in after the end',
      'if (this.#isDisposed || lifeMs <= 0) return;',
      'if (lifeMs <= 0) return;',
    ],
  ],
  'src/nmi/base/lines/log-budget.ts': [
    ['a pod writes any number of lines', 'if (known.written < most) {', 'if (true) {'],
    ['kinds of lines take all memory', 'this.#kinds.size >= this.#maxKinds', 'false'],
  ],
  'src/nmi/base/lines/glog-text.ts': [
    [
      'an object forges a line of the log',
      "value === 'string' ? quote(value)",
      "value === 'string' ? value",
    ],
    ['grep ^E finds nothing', "error: 'E'", "error: 'I'"],
  ],
  'src/nmi/base/json-value.ts': [
    ['a list is taken for an object', ' && !Array.isArray(value)', ''],
  ],
  'src/nmi/base/log.ts': [
    [
      'a token that was given for a resource is logged',
      "return isUri || isGuid ? resource : '[unusual]';",
      'return resource;',
    ],
    [
      'a whole client id is logged',
      'if (clientId.length < 8) return clientId;',
      'return clientId;',
    ],
  ],
  'src/nmi/base/network-code.ts': [
    [
      'a message with an address is shown',
      "? 'TIMEOUT' : error.name",
      "? 'TIMEOUT' : error.message",
    ],
  ],
  'src/nmi/base/periodic-job.ts': [
    [
      'a job goes on after its end',
      'if (!isDisposed && delayMs !== undefined) arm(delayMs);',
      'if (delayMs !== undefined) arm(delayMs);',
    ],
  ],
  'src/nmi/base/printable.ts': [
    [
      'a terminal is moved by an object',
      "text.replaceAll(/[^\\x20-\\x7e]|['\"\\\\<>]/g, '?')",
      'text',
    ],
    ['an error is as long as its writer likes', 'clean.length > 300 ? ', 'false ? '],
  ],
  'src/nmi/base/readiness.ts': [
    [
      'an agent is ready that lacks something',
      'ready: Object.keys(missing).length === 0',
      'ready: true',
    ],
  ],
  'src/nmi/base/retry-after.ts': [
    ['a server makes us wait for days', 'Math.min(seconds, maxS)', 'seconds'],
  ],
  'src/nmi/base/single-flight.ts': [
    ['each who asks begins a call', 'this.#calls.get(key) ?? ', ''],
    ['a call that has ended answers for ever', '.finally(() => this.#calls.delete(key))', ''],
  ],
  'src/nmi/config/config.ts': [
    [
      'the environment goes before a flag',
      'given.set(option, { shown, text });',
      'if (!given.has(option)) given.set(option, { shown, text });',
    ],
    ['an unknown flag is passed over', 'problems.push(`unknown flag', 'void (`unknown flag'],
    ['probes share the port of pods', 'if (port !== config.listenPort) return [];', 'return [];'],
    ['a Service called nmi sets an option', ' && !isServiceLink(shown, text)) return', ') return'],
    [
      'an agent starts with a setting that is wrong',
      'problems.push(wrongValue(entry, allowed))',
      'void wrongValue(entry, allowed)',
    ],
  ],
  'src/nmi/config/duration.ts': [
    ['a minute is a second', "['m', 60_000]", "['m', 1_000]"],
    ['a duration overflows a timer', 'totalMs <= 0x7fff_ffff ? totalMs : undefined', 'totalMs'],
  ],
  'src/nmi/config/option-types.ts': [
    [
      'a number beyond its range is taken',
      'value >= min && value <= max ? value : undefined;\n    },\n    show: String,',
      'value;\n    },\n    show: String,',
    ],
    [
      'a list loses what is wrong in it',
      'if (value === undefined) return undefined;\n        values.add(value);',
      'if (value !== undefined) values.add(value);',
    ],
    [
      'false is true',
      '/^(?:0|f|F|FALSE|false|False)$/.test(text) ? false',
      '/^(?:0|f|F|FALSE|false|False)$/.test(text) ? true',
    ],
  ],
  'src/nmi/config/options.ts': [
    [
      'what only the manifest sets is a flag',
      "return group !== 'Environment only';",
      'return true;',
    ],
  ],
};

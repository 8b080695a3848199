/** The API server: how its answers are read, and when requests are repeated. */
import type { Faults } from '../mutation.ts';

export const kube: Faults = {
  'src/nmi/kube/accounts/own-account.ts': [
    ['a user is taken for a service account', ' && rest.length === 0', ''],
  ],
  'src/nmi/kube/accounts/service-account-path.ts': [
    ['a name is a path', '!isDnsLabel(namespace) || !isDnsSubdomain(name)', 'false'],
  ],
  'src/nmi/kube/api/backoff.ts': [
    ['nodes that failed together come back together', 'ceiling * (0.5 + random / 2)', 'ceiling'],
    [
      'a pause grows for ever',
      'Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(failures - 1, 30))',
      'backoff.baseMs * 2 ** Math.min(failures - 1, 30)',
    ],
    [
      'a server asks for a day and gets it',
      'Math.min(retryAfterMs, maxRetryAfterMs)',
      'retryAfterMs',
    ],
    ['a server asks to be left alone in vain', 'if (retryAfterMs > 0) {', 'if (false) {'],
  ],
  'src/nmi/kube/api/call-outcome.ts': [
    [
      'a bug is taken for an outage',
      'if (!(failure instanceof KubeError)) throw failure;',
      'if (!(failure instanceof KubeError)) return malformed;',
    ],
    [
      'a missing right passes by itself',
      "if (failure.code === 'FORBIDDEN') return",
      "if (failure.code === 'GONE') return",
    ],
  ],
  'src/nmi/kube/api/json-lines.ts': [
    ['a line takes all memory', 'if (pendingBytes <= maxLineBytes) return;', 'return;'],
    ['a cut stream looks whole', 'pendingBytes += part.length;', ''],
    ['an event is lost between two chunks', 'keep(bytes.subarray(start));', ''],
  ],
  'src/nmi/kube/api/kube-error.ts': [
    ['a list that has expired is tried again', "[410, 'GONE'],\n", ''],
    ['a server writes any text into the log', 'message.slice(0, 512)', 'message'],
  ],
  'src/nmi/kube/api/list-pages.ts': [
    ['a page of some megabytes is too large', 'maxBytes: maxPageBytes', ''],
    ['only the first page is read', "if (continueToken === '') return version;", 'return version;'],
    [
      'an answer that is no list empties the store',
      "if (version === '' || !(none || Array.isArray(items))) {",
      'if (false) {',
    ],
    [
      'a version is asked for beside a continuation',
      "else if (list.version !== '') query.set",
      "if (list.version !== '') query.set",
    ],
  ],
  'src/nmi/kube/api/watch-event.ts': [
    [
      'a deletion is a change',
      "case 'DELETED':\n      return { kind: 'deleted', object, version };",
      "case 'DELETED':\n      return { kind: 'changed', object, version };",
    ],
    [
      'every bookmark ends the list',
      "'k8s.io/initial-events-end') === 'true'",
      "'k8s.io/initial-events-end') !== 'x'",
    ],
    [
      'an error of the server is an object',
      "if (type === 'ERROR') return { kind: 'error', error: statusObjectError(object) };",
      '',
    ],
    ['a wait is a thousand times too short', 'retryAfterSec * 1000', 'retryAfterSec'],
  ],
  'src/nmi/kube/api/watch-stream.ts': [
    [
      'a cut event is lost in silence',
      "if (lines.pendingBytes > 0) throw new KubeError('NETWORK', 'the stream was cut in an event');",
      '',
    ],
    ['pods wait while a list is read', 'await nextTurn();', ''],
    ['a stream that nobody reads goes on', 'await batches.return();', ''],
  ],
  'src/nmi/kube/events/event.ts': [
    [
      'the API server refuses a long note',
      'if (bytes.byteLength <= maxBytes) return text;',
      'return text;',
    ],
    ['a note is cut within a character', '((bytes[end] ?? 0) & 0xc0) === 0x80', 'false'],
    ['a note steers a terminal', "text.replaceAll(/[\\p{C}\\p{Zl}\\p{Zp}]/gu, '?')", 'text'],
    ['the API server refuses the times', "replace('Z', '000Z')", "replace('Z', 'Z')"],
  ],
  'src/nmi/kube/events/event-aggregator.ts': [
    ['one pod takes the room of all', '>= maxKinds', '>= Infinity'],
    ['one namespace takes the room of all', '< maxEntries - this.#size', '< maxEntries'],
    ['a node writes without limit', 'this.#writesAtMs.length < budget.writes', 'true'],
    [
      'each refusal is an Event',
      'known.series = { count: known.series.count + 1, lastAtWallMs: nowWallMs };\n      return false;',
      'known.series = { count: known.series.count + 1, lastAtWallMs: nowWallMs };\n      return true;',
    ],
    ['what occurred once is written for ever', 'count === entry.reported ||', ''],
    ['an Event is written again before its time', 'if (entry.quietUntilMs > nowMs) continue;', ''],
    ['memory grows with every pod', 'if (kinds?.delete(kind) === true) this.#size -= 1;', ''],
  ],
  'src/nmi/kube/events/event-writer.ts': [
    ['an API server that is down is asked on and on', 'entry.failures < maxTries', 'true'],
    [
      'an API server that is down is asked at once',
      'backoffMs(backoff, this.#failures, random(), error.retryAfterMs)',
      '0',
    ],
    ['each refused write is a line of the log', 'this.#logged.add(code);', ''],
    [
      'writes go on after the end',
      'if (this.#isWriting || this.#ended.signal.aborted) return;',
      'if (this.#isWriting) return;',
    ],
    ['all Events are written at once', 'this.#isWriting = true;', ''],
  ],
  'src/nmi/kube/watch/decoder.ts': [
    ['an object that became unusable goes on granting', 'if (ref !== undefined) drop(ref);', ''],
    [
      'a deleted object stays',
      'const ref = refOf(object);\n      drop(ref);',
      'const ref = refOf(object);',
    ],
    [
      'the objects of one namespace have no limit',
      'if (!usage.add(parsed.value)) return reject(parsed.value, noRoom);',
      'usage.add(parsed.value);',
    ],
    [
      'an object that was deleted within a list is in it',
      'store.replace(gone.size === 0 ? items : items.filter(isLeft));',
      'store.replace(items);',
    ],
    ['the log is filled with one object', 'if (skipped.get(uid) !== reason) {', 'if (true) {'],
  ],
  'src/nmi/kube/watch/parse.ts': [
    [
      'a pod takes the cgroup of another by an annotation',
      "hash !== '' && stringAt(annotations, 'kubernetes.io/config.mirror') === hash",
      "hash !== ''",
    ],
    [
      'a binding that was to be narrowed is for all',
      "if (serviceAccount === undefined) return unusable(ref, 'spec.serviceAccount is not a string');",
      '',
    ],
    [
      'a list of no resources is for all',
      'if (!Array.isArray(listed) || listed.length === 0) return',
      'if (!Array.isArray(listed)) return',
    ],
    ['a label called constructor is there', 'Object.setPrototypeOf(map, null);', ''],
    ['an object without a uid is taken', " || ref.uid === ''", ''],
    [
      'an object of no age is young',
      'Number.isNaN(at) ? 0 : at',
      'Number.isNaN(at) ? Date.now() : at',
    ],
    [
      'a pod has one of its two addresses',
      'if (ips.length > 0) return [...new Set(ips)];',
      'if (ips.length > 0) return ips.slice(0, 1);',
    ],
  ],
  'src/nmi/kube/watch/reflector-state.ts': [
    [
      'a watch goes on from a version that has expired',
      'if (isRelist) state.version = undefined;',
      '',
    ],
    [
      'a restored server is watched from the future',
      'return /^\\d+$/.test(one) && /^\\d+$/.test(other) && BigInt(one) < BigInt(other);',
      'return false;',
    ],
    ['versions are compared as texts', 'BigInt(one) < BigInt(other)', 'one < other'],
    ['a server that closes watches is asked in a loop', 'state.closes += 1;', ''],
    [
      'a list that has ended early is complete',
      'if (version === undefined) {\n    failed(',
      'if (false) {\n    failed(',
    ],
    [
      'checks are asked for without end',
      'if (nowMs - state.checkAtMs < timing.checkEveryMs) return;',
      '',
    ],
    [
      'a watch is healthy at once',
      'const delayMs = around.timing.healthyMs;',
      'const delayMs = 0;',
    ],
    [
      'the first list is not noted',
      "if (state.lists === 1) state.effects.push({ kind: 'synced' });",
      '',
    ],
    [
      'the other watches are not notified that the server is back',
      "if (state.isAway) state.effects.push({ kind: 'notify-recovery' });",
      '',
    ],
    ['a snapshot that expired is paged again', "state.isUnpaged ||= code === 'GONE';", ';'],
  ],
  'src/nmi/kube/watch/retry-policy.ts': [
    ['a whole cluster lists at once', 'chance * timing.relistJitterMs - before.waitedMs', '0'],
    ['failures do not add up', 'kind === before.kind ? before.count + 1 : 1', '1'],
    [
      'a wait ends that the server asked for',
      "kind === 'outage' && retryAfterMs === undefined",
      "kind === 'outage'",
    ],
    [
      'a version that cannot be read is watched from',
      'const isRelist = status === 400 || [',
      'const isRelist = [',
    ],
    ['a server that closes watches is asked in a loop', 'if (closes <= 2) return 0;', 'return 0;'],
  ],
  'src/nmi/kube/accounts/secrets.ts': [
    [
      'a name leads out of its namespace',
      'if (isDnsLabel(secret.namespace) && isDnsSubdomain(secret.name)) return undefined;',
      'return undefined;',
    ],
    ['a Secret has any size', 'if (encodedChars > maxEncodedChars)', 'if (false)'],
    [
      'whether a Secret is gone is asked with its contents',
      '{ timeoutMs, accept: nameAlone }',
      '{ timeoutMs }',
    ],
    [
      'a Secret that cannot be read counts as gone',
      "isGone: async (secret) => (await check(secret)).kind === 'missing',",
      "isGone: async (secret) => (await check(secret)).kind !== 'readable',",
    ],
    [
      'another object is taken for a Secret',
      "object?.['kind'] !== 'Secret' || data === undefined",
      'data === undefined',
    ],
  ],
  'src/nmi/kube/accounts/service-accounts.ts': [
    [
      'what was read once serves for ever',
      'const servesMs = failure !== undefined || isLate ? staleLimitMs : 2 * keepMs;',
      'const servesMs = Infinity;',
    ],
    [
      'an outage of the API server takes the identity away',
      'const servesMs = failure !== undefined || isLate ? staleLimitMs : 2 * keepMs;',
      'const servesMs = 2 * keepMs;',
    ],
    [
      'one account is read many times at once',
      'if (!reading.has(key) && clock.monotonicMs()',
      'if (clock.monotonicMs()',
    ],
    [
      'an account that has just been annotated is asked for late',
      'nowMs + (isEmpty ? Math.min(emptyKeepMs, keepMs) : keepMs)',
      'nowMs + keepMs',
    ],
    ['the server’s own pause has no bound', 'Math.min(askedMs, maxRetryAfterMs)', 'askedMs'],
    [
      'another application is taken without a word',
      'generation++;\n      entry.isAwaited = true;',
      'entry.isAwaited = true;',
    ],
    [
      'a failure outlives the next success',
      'entry.failure = undefined;\n    entry.nextReadAtMs',
      'entry.nextReadAtMs',
    ],
    ['a late read is waited for', 'entry.isLate = true;', ''],
  ],
  'src/nmi/kube/accounts/token-request.ts': [
    [
      'a token is bound to no pod',
      '...(boundTo === undefined\n        ? {}',
      '...(true\n        ? {}',
    ],
    [
      'a pod that was replaced is a refusal',
      "if (boundTo !== undefined && isOtherPod) return { kind: 'pod_replaced', said };",
      '',
    ],
  ],
  'src/nmi/kube/api/client.ts': [
    ['a renewed token is not tried', 'return attempt(renewed, request, signal);', 'throw error;'],
    [
      'a refused credential is sent again and again',
      'if (sameIdentity(access, renewed)) throw error;',
      '',
    ],
    [
      'a watch that went silent is kept',
      'deadline.restart(silenceMs);\n      onOpen?.();',
      'deadline.restart(1e9);\n      onOpen?.();',
    ],
    [
      'each byte of a watch brings its end nearer',
      '() => deadline.restart(silenceMs)',
      '() => undefined',
    ],
    [
      'another certificate is not used before the next start',
      'if (active?.fingerprint === access.fingerprint) return active.pool;',
      'if (active !== undefined) return active.pool;',
    ],
    ['leaving a watch leaves its connection', 'response?.body.destroy();', ''],
  ],
  'src/nmi/kube/api/credentials.ts': [
    ['a refused token is kept', 'config = undefined;', ''],
    [
      'a line end makes the token unusable',
      'headers[name.toLowerCase()] = value.trim();',
      'headers[name.toLowerCase()] = value;',
    ],
    ['the server’s certificate is not looked at', 'skipTLSVerify: false,', 'skipTLSVerify: true,'],
    ['an IPv6 address is no URL', 'isIPv6(host) ? `[${host}]` : host', 'host'],
    ['a new authority is not used', "tls.ca ?? '',", ''],
  ],
  'src/nmi/kube/watch/reflector.ts': [
    [
      'grants are lost with the right to list them',
      "return error.code === 'NOT_FOUND' && failures",
      'return failures',
    ],
    ['grants are lost while a server starts', ' && failures.count >= failuresBeforeAbsence', ''],
    ['grants outlive their kind', 'this.#intake.gather().commit();', ''],
    [
      'a relist empties the store for a while',
      'gathering.commit();\n    this.#dispatch',
      'this.#dispatch',
    ],
    [
      'a relist is older than what expired',
      "version: listsFromMemory && lists === 0 ? '0' : '',",
      "version: listsFromMemory ? '0' : '',",
    ],
    [
      'an error in a watch is passed over',
      "if (event.kind === 'error') throw event.error;",
      "if (event.kind === 'error') continue;",
    ],
    [
      'a call goes on after its phase',
      "if (after !== phase && after.kind !== 'watching') this.#call.abort();",
      '',
    ],
    ['timers of an ended call fire', 'for (const disarm of this.#timers.splice(0)) disarm();', ''],
    [
      'a disposed reflector goes on',
      'if (this.#stop.signal.aborted) return;\n    const { clock, random }',
      'const { clock, random }',
    ],
    [
      'a bookmark in a list ends it',
      'gathering !== undefined && event.endsList',
      'gathering !== undefined',
    ],
    [
      'who waits for the first list is not released by the end',
      'this.#synced.reject(new DOMException(',
      'void (new DOMException(',
    ],
  ],
  'src/nmi/kube/watch/watches.ts': [
    ['finished pods keep their addresses', ',status.phase!=Succeeded,status.phase!=Failed', ''],
    ['every node’s pods are watched', 'spec.nodeName=${node},', ''],
    [
      'one watch counts for all',
      'return all.every((reflector) => reflector.synced);',
      'return all.some((reflector) => reflector.synced);',
    ],
    ['a stale watch is not told', 'reflectors[name].stats().stalenessMs > limitMs', 'false'],
  ],
};

/** Pods, grants, identifiers; tokens and when they are fetched. */
import type { Faults } from '../mutation.ts';

export const cache: Faults = {
  'src/cache/index/binding-label.ts': [
    [
      'a label that a pod inherits counts',
      'Object.hasOwn(pod.labels, bindingLabel)',
      'bindingLabel in pod.labels',
    ],
  ],
  'src/cache/index/grant-index.ts': [
    [
      'a binding counts in every namespace',
      'objectKey(after.namespace, after.selector)',
      'objectKey("", after.selector)',
    ],
    ['a binding that is gone still grants', 'this.#bindingsByGroup.delete(groupKey, before);', ''],
    [
      'a binding for one service account is for all pods',
      "['', serviceAccount].includes(each.serviceAccount)",
      'true',
    ],
    [
      'the claim of one service account is another’s',
      "group.namesAccount ? pod.serviceAccount : ''",
      "''",
    ],
    [
      'a binding with an empty selector matches pods',
      "after !== undefined && after.selector !== ''",
      'after !== undefined',
      'an empty label counts as no label, so no pod asks for that selector',
    ],
    [
      'an exception needs all its labels',
      'if (!Object.hasOwn(pod.labels, key)) continue;',
      'if (!Object.hasOwn(pod.labels, key)) return false;',
    ],
    [
      'an exception compares labels in their letter case',
      'pod.labels[key]?.toLowerCase() === value.toLowerCase()',
      'pod.labels[key] === value',
    ],
    [
      'the newest identity is the default',
      'return a.createdAtWallMs - b.createdAtWallMs ||',
      'return b.createdAtWallMs - a.createdAtWallMs ||',
    ],
    [
      'the last of two identities answers for a client id',
      "if (key !== '' && !map.has(key))",
      "if (key !== '')",
    ],
    [
      'an identity is found by an empty client id',
      "if (key !== '' && !map.has(key))",
      'if (!map.has(key))',
    ],
    [
      'an edited identity keeps its old grants',
      'this.#touchGroup(objectKey(binding.namespace, binding.selector));',
      '',
    ],
    [
      'claims of labels that no pod has are kept',
      'if (!this.#entriesByGroup.has(groupKey)) this.#groups.delete(groupKey);',
      '',
    ],
    [
      'the grants of a pod outlive its label',
      'this.#leaveGroup(entry);\n    entry.groupKey = groupKey;',
      'entry.groupKey = groupKey;',
    ],
    [
      'the generation does not change with the grants',
      'this.#generation++;\n    this.#observers.notify();',
      'this.#observers.notify();',
    ],
    [
      'grace counts from the creation of the pod alone',
      'Math.max(pod.createdAtWallMs, this.#pods.labelledSinceWallMs(pod.uid))',
      'pod.createdAtWallMs',
    ],
  ],
  'src/cache/index/identifiers.ts': [
    [
      'a client id in another letter case is another',
      'return text.trim().toLowerCase();',
      'return text.trim();',
    ],
    ['a bare slash equals no resource id', "segments.length === 0 ? '' : ", ''],
    ['text in front of a GUID is passed upstream', '/^[0-9a-f]{8}', '/[0-9a-f]{8}'],
    ['blanks in a resource id are passed upstream', '[\\x21-\\x7e]+$', '[\\x20-\\x7e]+$'],
    ['a resource id of any length is passed upstream', 'text.length <= 1024 && ', ''],
  ],
  'src/cache/index/ip.ts': [
    [
      'an IPv4 address has two spellings',
      'return isMapped ? address.slice(mappedPrefix.length) : address;',
      'return address;',
    ],
    [
      'an address has one for each zone',
      "const [withoutZone = ''] = text.split('%');",
      'const withoutZone = text;',
      'the platform drops the zone itself',
    ],
  ],
  'src/cache/index/multimap.ts': [
    [
      'the second value takes the place of the first',
      'new Set([group, value])',
      'new Set([value])',
    ],
    ['an emptied group is kept', 'if (group.size === 0) this.#groups.delete(key);', ''],
  ],
  'src/cache/index/object-store.ts': [
    ['the late delete of a predecessor takes the successor', ' || before.uid !== ref.uid', ''],
    [
      'an object that a list lacks stays',
      'if (!next.has(key)) this.#observer.changed(stored, undefined);',
      '',
    ],
    [
      'an equal object is a change',
      'if (before !== undefined && isSameObject(before, item)) return;',
      '',
    ],
  ],
  'src/cache/index/objects.ts': [['a failed pod lives', " || phase === 'Failed'", '']],
  'src/cache/index/observers.ts': [
    [
      'a listener that was unsubscribed is called',
      'if (!this.#subscriptions.has(subscription)) continue;',
      '',
    ],
    ['one listener’s failure is hidden', 'this.#onError(error);', ''],
  ],
  'src/cache/index/owner-index.ts': [
    ['a grant is for every namespace', 'namespaces.includes(namespace) || ', 'true || '],
    ['a star is a name', ' || namespaces.includes(everyNamespace)', ''],
    [
      'a client id is granted in one letter case only',
      'this.#byClientId.of(normaliseClientId(clientId))',
      'this.#byClientId.of(clientId)',
    ],
    [
      'a grant that is gone still gives the identities of the node',
      'this.#ofNode.delete(grant);',
      '',
    ],
    ['any grant gives the identities of the node', 'if (grant.nodeIdentities) ', ''],
    ['a decision outlives its grant', 'this.#generation++;', ''],
  ],
  'src/cache/index/pod-index.ts': [
    [
      'two pods share one address and both are served',
      "if (lookup.kind === 'unknown') return [];",
      'return [];',
    ],
    [
      'a pod that has ended keeps its address',
      'if (pod.hostNetwork || hasEnded(pod)) return [];',
      'if (pod.hostNetwork) return [];',
    ],
    [
      'the address of the node is a pod’s',
      'if (pod.hostNetwork || hasEnded(pod)) return [];',
      'if (hasEnded(pod)) return [];',
    ],
    [
      'an address that a pod has lost stays its own',
      'if (!addresses.includes(ip)) leave(tables, ip, before.pod);',
      'if (addresses.includes(ip)) continue;',
    ],
    ['the late delete of a predecessor takes the successor', ' || entry.pod.uid !== ref.uid', ''],
    [
      'of two names for a uid both are found',
      'if (keyBefore !== key) tables.byName.delete(keyBefore);',
      '',
    ],
    [
      'a new label begins no grace',
      'keepsLabel ? stored.labelledSinceWallMs : this.#clock.wallMs()',
      'stored.labelledSinceWallMs',
    ],
    ['look-ups are not known to have changed', 'this.#generation++;', ''],
  ],
  'src/cache/token/cache.ts': [
    [
      'a token that is nearly over is served',
      '< entry.floorMs) return undefined',
      '< 0) return undefined',
    ],
    ['every caller begins a fetch of its own', 'this.#inflight.set(request.key, inflight);', ''],
    ['more callers wait than may', 'this.#waiting < maxWaiters ? ', 'true ? '],
    ['a dead token is kept', '<= this.#clock.wallMs()) {', '< 0) {'],
    [
      'what a dropped fetch brings is kept',
      'if (!inflight.isDropped) this.#record',
      'this.#record',
    ],
    [
      'the cache grows without end',
      'this.#entries.size > maxEntries && ',
      'this.#entries.size > maxEntries * 10 && ',
    ],
    ['one identity displaces all others', 'if (members.size <= maxPerGroup) return;', 'return;'],
    ['a failure does not answer for its key', 'this.#negative.fail(request, result.failure);', ';'],
    ['a token is fetched anew that nobody wants', ' || !isWanted(entry.request)', ''],
    ['a token is fetched anew that nobody uses', 'unusedMs > usedWithinMs || ', ''],
  ],
  'src/cache/token/deadline-heap.ts': [
    [
      'the later of two deadlines comes first',
      'right.dueAtMs < left.dueAtMs ? right',
      'right.dueAtMs > left.dueAtMs ? right',
    ],
    ['a deadline that was taken out is in', 'item.heapIndex = -1;\n    const last', 'const last'],
  ],
  'src/cache/token/entry.ts': [
    [
      'a token is served by the clock that gives it more life',
      'return Math.min(this.expiresAtWallMs',
      'return Math.max(this.expiresAtWallMs',
    ],
    [
      'a token is dropped by the clock that gives it less life',
      'return Math.max(this.expiresAtWallMs',
      'return Math.min(this.expiresAtWallMs',
    ],
    ['a token that was dropped comes back', 'dead: [],', "dead: ['fresh'],"],
    ['failures in a row do not add up', 'this.#state.failures + 1 : 1', '1 : 1'],
  ],
  'src/cache/token/lru-list.ts': [
    ['what was used stays the next to go', 'this.delete(item);\n    this.add(item);', ''],
  ],
  'src/cache/token/negative-cache.ts': [
    ['failures are held no longer in a row', '2 ** (failures - 1)', '1'],
    [
      'a failure is held for an hour',
      'const longestGrownCooldownMs = 10_000;',
      'const longestGrownCooldownMs = 3_600_000;',
    ],
    [
      'failures are kept without end',
      'if (this.#entries.size <= this.#maxKeys) return;',
      'return;',
    ],
    [
      'a success is followed by the failure before it',
      'reset(key: string): void {\n    this.#entries.delete(key);',
      'reset(key: string): void {\n    void key;',
    ],
  ],
  'src/cache/token/rate-limiter.ts': [
    ['a retry overtakes fetches that wait', 'this.queued > 0 || ', ''],
    ['a retry is on top of the rate', 'this.#noteStart();\n    return true;', 'return true;'],
    ['the queue has no bound', 'if (queue.size >= this.#maxQueued) return false;', ''],
    ['a second has no limit', 'return oldestAtMs + windowMs', 'return oldestAtMs'],
    [
      'more run at once than may',
      'while (this.#running.size < this.#maxConcurrent)',
      'while (this.#running.size <= this.#maxConcurrent)',
    ],
    [
      'background work goes before callers',
      'this.#callers.shift() ?? firstOf(this.#background)',
      'firstOf(this.#background) ?? this.#callers.shift()',
    ],
    [
      'what callers wait for twice starts twice',
      'this.#background.delete(task);\n      this.#running.add(task);',
      'this.#running.add(task);',
    ],
    [
      'one that a caller waits for stays behind in the background',
      'if (this.#background.delete(task) || this.#callers.has(task)) {',
      'if (this.#callers.has(task)) {',
    ],
  ],
  'src/cache/token/refresh-policy.ts': [
    [
      'tokens that came together are fetched together',
      'dueMs * (1 - dueSpread + 2 * dueSpread * random)',
      'dueMs',
    ],
    [
      'a source that repeats itself is asked in a loop',
      'Math.max(shortestPauseMs, ',
      'Math.max(0, ',
    ],
    [
      'a failing source is asked every five seconds',
      'firstRetryMs * 2 ** (failures - 1)',
      'firstRetryMs',
    ],
  ],
  'src/cache/token/timer-queue.ts': [
    [
      'a token of years is due at once',
      'const longestArmMs = 24 * 3_600_000;',
      'const longestArmMs = Infinity;',
    ],
    [
      'what was cleared is due',
      'clear(timer: QueuedTimer): void {\n    this.#heap.delete(timer);',
      'clear(timer: QueuedTimer): void {\n    void timer;',
    ],
    [
      'one that fails stops the others',
      '} finally {\n      this.#arm();\n    }',
      '} finally {\n      void 0;\n    }',
    ],
  ],
  'src/cache/token/token.ts': [
    [
      'a token is said to live longer than it does',
      'Math.max(0, this.#leftS(nowS))',
      'this.#leftS(nowS) + 3600',
    ],
    ['a token is printed by accident', "return '[token]';", 'return this.token.accessToken;'],
  ],
  'src/cache/token/fair-queue.ts': [
    [
      'a namespace keeps its turn',
      'this.#lanes.delete(namespace);\n          this.#lanes.set(namespace, pods);',
      '',
    ],
    ['a pod keeps its turn', 'pods.delete(pod);\n          pods.set(pod, lane);', ''],
    [
      'what two pods wait for comes out twice',
      'for (const { namespace, pod } of parties) {',
      'for (const { namespace, pod } of parties.slice(0, 1)) {',
    ],
    ['pods that wait for nothing are kept', 'if (lane?.size === 0) pods?.delete(pod);', ''],
    ['the second pod that waits for an entry is forgotten', 'else parties.push(party);', ''],
  ],
};

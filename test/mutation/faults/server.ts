/** From a connection to an answer. */
import type { Faults } from '../mutation.ts';

export const server: Faults = {
  'src/nmi/server/answer-writer.ts': [
    [
      'a peer that does not read keeps its socket',
      'clock.schedule(closeAfterMs, () => socket.destroy())',
      'clock.schedule(closeAfterMs, () => undefined)',
    ],
    [
      'a length is counted in characters',
      'String(Buffer.byteLength(answer.body))',
      'String(answer.body.length)',
    ],
    ['a connection goes on that was to end', 'isLast || answer.close === true', 'isLast'],
  ],
  'src/nmi/server/caller-limits.ts': [
    ['one pod waits for any number of tokens', '>= this.#max.fetches) ', '>= 1e9) '],
    ['one pod makes any number of requests wait', '>= this.#max.waiting) ', '>= 1e9) '],
    ['one pod holds any number of requests', '>= this.#max.held) ', '>= 1e9) '],
    [
      'a place to wait is never given back',
      'return () => this.#held.remove(limitKey);',
      'return () => undefined;',
    ],
    ['a pod is throttled and nobody sees it', 'this.#onBeyond(limitKey, limit);', ''],
  ],
  'src/nmi/server/close-stale-connections.ts': [
    ['connections of pods that are gone stay', 'caller.hasOutlived(pods)', 'false'],
    ['a pod that is gone is listened for after the end', 'unsubscribe();\n      sweep', 'sweep'],
  ],
  'src/nmi/server/fair-turns.ts': [
    [
      'one pod takes whole turns',
      'if (waiting === undefined && (this.#takenMs.get(caller) ?? 0) < this.#shareMs) {',
      'if (true) {',
    ],
    [
      'requests beyond two turns are never answered',
      'if (this.#waiting.size > 0 || this.#shareMs < shareMs) this.#look();',
      '',
    ],
    ['a request overtakes those that wait', 'if (waiting === undefined && (', 'if (('],
    [
      'one pod takes all of a later turn',
      'done < waiting.length && (this.#takenMs.get(caller) ?? 0) < this.#shareMs',
      'done < waiting.length',
    ],
    ['a request that waited is served twice', 'else waiting.splice(0, done);', ''],
    ['reading and writing cost nothing', ' - startMs + aroundMs', ' - startMs'],
    ['what is done later costs nothing', '(this.#takenMs.get(caller) ?? 0) + ms', '0'],
    ['callers are kept without end', ' || this.#takenMs.size > maxCallers', ''],
    ['each request has a look of its own', 'if (this.#isLooking) return;', ''],
    ['the share of a caller never comes back', 'this.#takenMs.clear();', ''],
    ['turns are as long while connections come', 'this.#shareMs = hurriedMs;', ''],
    ['turns stay short for ever', 'this.#hasAccepted = false;\n    for', 'for'],
  ],
  'src/nmi/server/pipeline-guard.ts': [
    ['all requests of a piece are parsed', 'if (countsMore(piece, most)) {', 'if (false) {'],
  ],
  'src/nmi/server/connection-limits.ts': [
    ['no descriptor is left for the watches', 'Math.max(files - reserved, files / 2)', 'files'],
    [
      'one pod takes every connection',
      'Math.min(enough.each, Math.ceil(total / greediest))',
      'total',
    ],
  ],
  'src/nmi/server/connections.ts': [
    [
      'one pod opens any number of connections',
      'if (this.#counts.get(limitKey) >= this.#each) return undefined;',
      '',
    ],
    ['a closed connection counts for ever', 'this.#counts.remove(limitKey);', ''],
    ['a closed connection is kept', 'this.#bySocket.delete(socket);', ''],
    [
      'a drain cuts answers that are under way',
      'if (open.size === 0) socket.destroy();',
      'socket.destroy();',
    ],
  ],
  'src/nmi/server/fast-path/fast-path.ts': [
    ['a right is used that is no longer valid', ' || !rights.isCurrent(decision, nowMs)', ''],
    [
      'the last answer is given to another target',
      'decision?.target !== target || ',
      'decision === undefined || ',
    ],
    ['a connection is kept that drains', 'if (isDraining()) return undefined;', ''],
  ],
  'src/nmi/server/fast-path/known-request.ts': [
    [
      'other headers are taken for known ones',
      'return isEqual(bytes, known.bytes, from, known.bytes.length, shift);',
      'return true;',
    ],
    [
      'an id breaks the head of a request',
      'if (!isHeaderText(bytes, { from: id.from + shift, to: id.to + shift })) return false;',
      '',
    ],
  ],
  'src/nmi/server/fast-path/parser.ts': [
    ['a forwarded request is served', "'x-forwarded-for',\n", ''],
    ['a body is taken for the next request', "'content-length',\n", ''],
    [
      'a request without the header is served',
      'return metadata === 1 ? ',
      'return metadata <= 1 ? ',
    ],
    ['the header is given twice', 'return metadata === 1 ? ', 'return metadata >= 1 ? '],
    [
      'a second request is swallowed',
      'if (text.indexOf(headEnd) !== text.length - headEnd.length) return undefined;',
      '',
      'a blank line is no header either, so that nothing behind one is read',
    ],
    [
      'a control character in a header is accepted',
      'const headerValue = /^[\\t\\x20-\\x7e]*$/;',
      'const headerValue = /^[^\\r\\n]*$/;',
    ],
  ],
  'src/nmi/server/fast-path/response-cache.ts': [
    [
      'expires_in does not count down',
      'this.#second = second;\n',
      'this.#second = second;\n    if (this.#date !== "") return;\n',
    ],
    [
      'tokens that nobody asks for stay in memory',
      'this.#isClearing = false;\n      this.#clear();',
      'this.#isClearing = false;',
    ],
    ['two clients get one request id', "bytes.write(requestId, whole.idAt, 'latin1');", ''],
    [
      'the id of one answer is written into another’s bytes',
      'const bytes = whole.isHeld ? Buffer.from(whole.bytes) : whole.bytes;',
      'const { bytes } = whole;',
    ],
  ],
  'src/nmi/server/fast-path/write-batch.ts': [
    ['an answer is written twice', 'this.#due = [];\n    this.#isLooking', 'this.#isLooking'],
  ],
  'src/nmi/server/host-token.ts': [
    ['/host/token answers any address', 'if (!isLoopback(exchange.caller.ip)) {', 'if (false) {'],
    ['128.0.0.1 is loopback', "canonicalIp.startsWith('127.')", "canonicalIp.startsWith('12')"],
    ['a pod need not be named', "if (namespace === '' || name === '') {", 'if (false) {'],
    ['a pod that is about to come is refused at once', 'isPending: true,', 'isPending: false,'],
  ],
  'src/nmi/server/passthrough.ts': [
    [
      'headers of this connection are relayed',
      "for (const name of listed(upstream['connection'])) dropped.add(name);",
      '',
    ],
    ['a request is smuggled in a body', "if (method !== 'POST') return undefined;", ''],
    [
      'instance metadata is open that is to be closed',
      'if (!policy.blockInstanceMetadata) return undefined;',
      'return undefined;',
    ],
    [
      'an area is open that nobody opened',
      'if (policy.allowedAreas.includes(area)) return undefined;',
      'return undefined;',
    ],
    [
      'a body has no bound',
      'const maxRequestBytes = 64 * 1024;',
      'const maxRequestBytes = 64 * 1024 * 1024;',
    ],
    [
      'the caller names itself upstream',
      "const sentHeaders = ['accept', 'content-type', 'user-agent'];",
      "const sentHeaders = ['accept', 'content-type', 'user-agent', 'authorization'];",
    ],
  ],
  'src/nmi/server/request.ts': [
    ['a header is found by its length', ' || name.toLowerCase() !== lowerCaseName', ''],
    [
      'an answer is made that nobody reads',
      'this.response.destroyed || this.response.closed',
      'this.response.destroyed',
    ],
  ],
  'src/nmi/server/route.ts': [
    [
      'a backslash slips through (CVE-2022-23551)',
      "_~!$&'()*+,;=:@/]*$/",
      "_~!$&'()*+,;=:@/\\\\]*$/",
    ],
    ['an escaped slash slips through', 'if (/%(?:2f|5c|25)/i.test(raw)) return undefined;', ''],
    ['a path climbs', "segment === '.' || segment.startsWith('..')", "segment === '.'"],
    [
      'path parameters are forwarded',
      'if (!rest.every((segment) => plainSegment.test(segment))) return invalid;',
      '',
    ],
    [
      'a fragment ends the query of who parses it next',
      'const forwardableQuery = /^[\\x21-\\x22\\x24-\\x7e]*$/;',
      'const forwardableQuery = /^[\\x21-\\x7e]*$/;',
    ],
    [
      'a token path is passed through',
      "if (second === 'identity') {",
      "if (second === 'identity' && rest.length === 2) {",
      'identity is none of the areas that are forwarded: it is not found either way',
    ],
  ],
  'src/nmi/server/router.ts': [
    [
      'a forwarded request is served',
      "if (exchange.headerValues('x-forwarded-for').length > 0) {",
      'if (false) {',
    ],
    [
      'two Metadata headers are one',
      "values.length === 1 && values[0] === 'true'",
      "values[0] === 'true'",
    ],
    [
      'a token is posted for',
      "checkCommon(exchange, ['GET'], options) ??",
      "checkCommon(exchange, ['GET', 'POST'], options) ??",
    ],
    [
      'an unknown pod reads instance metadata',
      "if (identified.kind === 'refused') return renderRefusal(identified);",
      '',
    ],
    ['a closed area is relayed', 'options.passthrough.refusal(route) ??', ''],
    [
      'the agent asks itself without end',
      'if (!options.loopDetection.isOwn(correlationId)) return undefined;',
      'return undefined;',
    ],
  ],
  'src/nmi/server/decision-cache.ts': [
    [
      'a right outlives what it rests on',
      'decision.generation === this.#currentGeneration() && ',
      '',
    ],
    ['a right is never worked out again', ' && nowMs - decision.madeAtMs < maxAgeMs', ''],
    ['a right that was handed over is for any pod', ' && handed.authorization.pod === pod', ''],
    ['rights are kept without end', 'this.#size >= maxOfAll', 'this.#size >= Infinity'],
    [
      'one pod displaces the rights of all others',
      'if (before >= maxOfPod && !rights.has(target)) rights.clear();',
      '',
    ],
    [
      'a new token is asked for and an old one given',
      'return wantsOtherToken(query) ? undefined : tokenKey(',
      'return tokenKey(',
    ],
  ],
  'src/nmi/server/token-endpoint.ts': [
    [
      'a token is given whose right has ended meanwhile',
      'if (isSame(decision, decisionNow)) {',
      'if (true) {',
    ],
    ['a request goes round for ever', 'turn < maxTurns; turn++', 'turn < 1e9; turn++'],
    [
      'a place for a fetch is never given back',
      '} finally {\n        endFetch();\n      }',
      '} finally {\n        void endFetch;\n      }',
    ],
    [
      'one pod is never throttled',
      'if (endFetch === undefined) return this.#close(job, decision, throttled());',
      '',
    ],
    [
      'a hit is not observed',
      "return this.#close(job, decision, answer, 'hit', fetchId);",
      'return answer;',
    ],
    [
      'a client that wants a new token gets the old one',
      'if (bypassCache) return broker.renew(identity, resource, party);',
      '',
    ],
    [
      'auxiliary tokens are of nobody’s failure',
      'if (!each.ok) {',
      'if (!each.ok && each === cached) {',
    ],
  ],
  'src/nmi/server/token-query.ts': [
    [
      'a misspelt selector hands out another identity',
      'if (meant === undefined) continue;',
      'continue;',
    ],
    ['of two values of a name one is taken', 'if (parameters.has(name)) {', 'if (false) {'],
    ['of two identities one is taken', 'if (chosen !== undefined) {', 'if (false) {'],
    ['a resource has any length', 'resource.length > maxResourceLength || ', ''],
    [
      'a line break is in a resource',
      'resource.length > maxResourceLength || hasControlCharacter(resource)',
      'resource.length > maxResourceLength',
    ],
    [
      'a version is any text',
      "apiVersion !== '' && !/^\\d{4}-\\d{2}-\\d{2}$/.test(apiVersion)",
      'false',
    ],
    [
      'a token that a service refused is given again',
      'return bypassCache || badTokenSha256 !== undefined;',
      'return bypassCache;',
    ],
  ],
  'src/nmi/server/wait-for-object.ts': [
    ['clients that have gone are held', 'exchange.isGone || ', ''],
    ['any number of requests is held', ' || waiters.isFull', ''],
    [
      'a request waits again from the start',
      'exchange.startedAtMs + maxWaitMs',
      'clock.monotonicMs() + maxWaitMs',
    ],
    [
      'a place to wait is never given back',
      '} finally {\n    endWait();\n  }',
      '} finally {\n    void endWait;\n  }',
    ],
    [
      'one pod holds all requests of the node',
      'if (endWait === undefined) return first;',
      'if (endWait === undefined) throw new Error();',
    ],
  ],
  'src/nmi/server/server.ts': [
    ['/host/token is on', 'hostTokens: config.hostToken\n      ?', 'hostTokens: true\n      ?'],
    [
      '/host/token is reached from no loopback',
      "return hostToken && !hasLoopback ? [listenIp, '127.0.0.1'] : [listenIp];",
      'return [listenIp];',
    ],
  ],
  'src/nmi/state/throttled-pods.ts': [
    [
      'a pod is called throttled for ever',
      '{ count: 1, lastAtMs }, keptMs)',
      '{ count: 1, lastAtMs })',
    ],
    ['a pod that is throttled on and on looks calm', 'counted.count += 1;', ''],
  ],
  'src/nmi/admin/readiness-events.ts': [
    ['every look is an Event', 'state === reported ||', ''],
    ['every start is a failure', '(!ready && isStarting)', 'false'],
    [
      'the API server is asked each second',
      "if (pod === 'unknown') return retryMs;",
      "if (pod === 'unknown') return pollMs;",
    ],
    ['it goes on after the end', '      job[Symbol.dispose]();\n', ''],
  ],
  'src/nmi/state/growing-pause.ts': [
    ['there is no pause', 'if (sinceMs < this.#pauseMs) return false;', ''],
    ['the pause does not grow', 'sinceMs < 2 * this.#pauseMs', 'false'],
    ['the pause is never short again', 'sinceMs < 2 * this.#pauseMs', 'this.#pauseMs > 0'],
    [
      'the pause grows without bound',
      'Math.min(this.#longestMs, 2 * this.#pauseMs)',
      '2 * this.#pauseMs',
    ],
  ],
  'src/nmi/state/owner-report.ts': [
    ['an object is reported at each look', '.filter(([key]) => !known.has(key))', ''],
    ['one namespace fills the log', 'fresh.slice(0, maxLines)', 'fresh'],
    [
      'what is not listed yet is reported as missing',
      'if (!clusterState.isSynced()) {',
      'if (false) {',
    ],
    ['an id is written in full', 'redactClientId(entry.id)', 'entry.id'],
  ],
  'src/nmi/state/waiters.ts': [
    [
      'any number of requests waits',
      'return this.#waiters.size >= this.#options.maxWaiters;',
      'return false;',
    ],
    ['a timer is left behind each request', 'disarm();\n        this.#waiters', 'this.#waiters'],
    ['a request that has left is kept', 'this.#waiters.delete(finish);', ''],
  ],
  'src/nmi/state/ip-staleness.ts': [
    [
      'addresses are believed for ever',
      'return limitMs === 0 || stalenessMs() <= limitMs;',
      'return true;',
    ],
    ['no proof is asked for', 'if (restMs <= 0) checkNow();', ''],
  ],
  'src/nmi/state/watch-report.ts': [
    [
      'an agent is ready without its lists',
      'if (unsynced.length === 0) return undefined;',
      'if (unsynced.length >= 0) return undefined;',
    ],
  ],
  'src/nmi/state/spare-memory.ts': [
    ['memory is given back once', 'return everyMs;', 'return undefined;'],
  ],
  'src/nmi/admin/pages.ts': [
    [
      '/metrics is on the port of the probes',
      "if (served.has('metrics') && path === '/metrics') {",
      "if (path === '/metrics') {",
    ],
    ['probes are on the port of the metrics', "if (served.has('probes')) {", 'if (true) {'],
    [
      'an agent is ready that is not',
      'const status = state.ready ? 200 : 503;',
      'const status = 200;',
    ],
    ['a port is open that is off', 'if (port === 0) return;', ''],
  ],
  'src/nmi/admin/startup-taint.ts': [
    [
      'pods come before the agent is ready',
      'if (!this.#options.isReady()) return readyPollMs;',
      '',
    ],
    ['taints of others are taken off', "stringAt(asRecord(taint), 'key') !== key", 'false'],
    [
      'a taint comes back that another took off',
      "{ op: 'test', path: '/spec/taints', value: taints },\n",
      '',
    ],
  ],
  'src/nmi/server/metadata-calls.ts': [
    ['an error is kept', 'answer.status === 200 && isSmall', 'isSmall'],
    ['a large document is kept', 'answer.status === 200 && isSmall', 'answer.status === 200'],
    [
      'a call keeps its slot',
      '} finally {\n      this.#limiter.leave(task);\n    }',
      '} finally {\n      void task;\n    }',
    ],
    [
      'a call waits for its turn without end',
      "deadline.signal.addEventListener('abort', () => reject(new NoTurnError()));",
      '',
    ],
    [
      'what must be made anew is shared',
      'if (sharedKey === undefined) return this.#send(call);',
      '',
    ],
    [
      'the node’s share of calls is one pod’s',
      'if (!this.#limiter.enter(task, party)) throw new NoTurnError();',
      'start();',
    ],
  ],
  'src/nmi/server/fast-path/connection.ts': [
    [
      'two requests in one go are answered in the wrong order',
      'writeDue();\n    if (isLast) return;',
      'if (isLast) return;',
    ],
    [
      'what was read is lost on the way to node:http',
      'socket.unshift(chunk);\n      options',
      'options',
    ],
    ['a connection that was to end stays', 'if (isLast) end();', ''],
    [
      'a slow reader is answered without bound',
      'socket.writableLength === 0 ? readRequest(chunk, last) : undefined',
      'readRequest(chunk, last)',
    ],
    [
      'an idle connection stays for ever',
      'if (hasAnswered) socket.destroy();\n    else options.onSilent();',
      'if (!hasAnswered) options.onSilent();',
    ],
    [
      'a slow first byte has the time of an idle client',
      'socket.setTimeout(options.firstByteMs);',
      'socket.setTimeout(options.idleMs);',
    ],
  ],
  'src/nmi/server/listener.ts': [
    ['a reset after CONNECT ends the agent', "socket.on('error', () => socket.destroy());", ''],
    [
      'requests on one connection are held without bound',
      'connection === undefined || connection.open.size >= maxPipelined',
      'connection === undefined',
    ],
    [
      'a body that nobody reads is the next request',
      "if (this.#isDraining || hasBody !== '0') response.shouldKeepAlive = false;",
      'if (this.#isDraining) response.shouldKeepAlive = false;',
    ],
    [
      'an error of the parser overtakes an answer',
      "last.shouldKeepAlive = false;\n      last.once('close', () => socket.destroySoon());\n      return;",
      '',
    ],
    ['a decision for one request answers another', 'connection.handed = undefined;', ''],
    [
      'connections without a look-up are held without bound',
      'if (whose !== undefined) {\n      socket.destroy();\n      this.#options.onTooMany(whose);\n    }',
      '',
    ],
    [
      'a caller over its share is read',
      'if (connection === undefined) {\n      socket.destroy();',
      'if (connection === undefined) {',
    ],
    ['the drain has no end', 'this.#connections.destroyAll();\n    });', '});'],
    [
      'a method that is unknown has no answer',
      "case 'HPE_INVALID_METHOD':\n      return methodNotAllowed();",
      '',
    ],
    ['clients wait after they have ended their half', 'server.httpAllowHalfOpen = true;', ''],
  ],
  'src/nmi/state/cluster-state.ts': [
    ['held requests sleep through a new binding', 'grants.onChange(() => waiters.wake());', ''],
    [
      'held requests sleep through a new annotation',
      'workloadIdentities?.onChange(() => waiters.wake());',
      '',
    ],
    [
      'pods make the API server list at will',
      'if (checkPause.take()) watches.checkNow();',
      'watches.checkNow();',
    ],
    [
      'addresses are believed that may be another pod’s',
      'limitMs: network === undefined ? 0 : config.addressStalenessLimitMs',
      'limitMs: 0',
    ],
  ],
  'src/nmi/admin/page-connections.ts': [
    ['pods keep the kubelet from its probe', 'surplus.destroy();', ''],
    ['one pod ends the scrapes of others', 'if (counts.get(address) === most) return', 'return'],
    [
      'the newest connection ends for the oldest',
      'for (const [socket, address] of open) if (',
      'for (const [socket, address] of [...open].reverse()) if (',
    ],
    [
      'connections of pods end those of the node',
      'remoteAddress !== undefined && remoteAddress === localAddress',
      'false',
    ],
    ['closed connections count', "socket.once('close', () => open.delete(socket));", ''],
  ],
};

/** The answers of IMDS and Entra ID, and the credentials sent for an identity. */
import type { Faults } from '../mutation.ts';

export const sources: Faults = {
  'src/nmi/sources/azure-node.ts': [
    ['a command has another in it', 'return /^\\w[\\w.-]{0,89}$/.test(text);', 'return true;'],
  ],
  'src/nmi/sources/clock-skew.ts': [
    ['the way of an answer is taken for a wrong clock', 'size > toleranceMs && ', ''],
    ['a header of nonsense moves the clock', ' && size <= longestMs', ''],
  ],
  'src/nmi/sources/token-fields.ts': [
    [
      'a token breaks the header of the next call',
      'return /^[\\x21-\\x7e]+$/.test(text);',
      'return true;',
    ],
    [
      'a time is infinite',
      'Number.isFinite(value) ? Math.floor(value) : undefined',
      'Math.floor(value)',
    ],
  ],
  'src/nmi/sources/upstream-identity.ts': [
    [
      'tokens of two sources share a name',
      "identity.kind === 'entra' ? identity.credential.kind : 'imds'",
      "'imds'",
    ],
  ],
  'src/nmi/sources/imds/token-body.ts': [
    [
      'a token without an end is taken',
      "if (expiresAtWallS === undefined) return badToken('without an expiry');",
      "if (expiresAtWallS === undefined) return badToken('');",
    ],
    [
      'a dead token is taken',
      'if (expiresAtWallS <= theirNowS) return badToken',
      'if (false) return badToken',
    ],
    [
      'a clock that is ahead shortens a life',
      'undefined : theirNowS + expiresIn',
      'undefined : nowS + expiresIn',
    ],
    [
      'a token is not valid yet',
      "Math.min(seconds(fields['not_before']) ?? nowS, nowS)",
      "seconds(fields['not_before']) ?? nowS",
    ],
    [
      'the resource is the upstream’s spelling',
      'resource,\n      expiresAtWallS,',
      "resource: stringAt(fields, 'resource'),\n      expiresAtWallS,",
    ],
  ],
  'src/nmi/sources/entra/aadsts.ts': [
    [
      'a secret that Entra ID repeats is shown',
      'if (!tellsAny(fields, secrets)) return failure;',
      'return failure;',
    ],
    [
      'a token that Entra ID repeats is shown',
      'if (told.some((text) => jwt.test(text))) return true;',
      '',
    ],
    [
      'a throttled node is refused for good',
      "if (status === 429) return 'upstream_throttled';",
      '',
    ],
    ['a proxy’s error page refuses for good', ' || fields === undefined;', ';'],
    [
      'an answer writes lines into the log',
      "text.replaceAll(/[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]+/gu, ' ').trim()",
      'text.trim()',
    ],
    [
      'Entra ID makes a pod wait for a day',
      'Math.min(Math.max(1, retryAfterS), 10)',
      'Math.max(1, retryAfterS)',
    ],
  ],
  'src/nmi/sources/entra/ca-file.ts': [
    ['a file without a certificate trusts nothing more, in silence', 'assertCertificate(pem);', ''],
  ],
  'src/nmi/sources/entra/clouds.ts': [
    [
      'a host is asked that is not allowed',
      'if (allowedHosts.includes(url.host)) {',
      'if (true) {',
    ],
    ['a password in an endpoint is shown', "adEndpoint.includes('@') ? '' : ", ''],
    [
      'a credential goes by http',
      '/^https:\\/\\/[^/?#@\\\\]+\\/?$/i.test(adEndpoint)',
      '/^https?:\\/\\/[^/?#@\\\\]+\\/?$/i.test(adEndpoint)',
    ],
  ],
  'src/nmi/sources/entra/live-pod.ts': [
    ['a pod that has ended speaks for an account', 'if (hasEnded(pod)) continue;', ''],
    [
      'a pod of another namespace speaks for an account',
      'pod.namespace !== account.namespace || ',
      '',
    ],
    [
      'a pod that goes is taken before one that stays',
      'return than.terminating;',
      'return pod.terminating;',
    ],
  ],
  'src/nmi/sources/entra/open-entra.ts': [
    [
      'a proxy that cannot be used is a bug',
      "throw new StartError('CONFIG', problem, 'correct HTTPS_PROXY or --entra-ca-file', error);",
      'throw error;',
    ],
  ],
  'src/nmi/sources/entra/proxy.ts': [
    [
      'the value of a proxy variable is shown',
      'problem: `${name} is not',
      'problem: `${text} is not',
    ],
  ],
  'src/nmi/sources/entra/token-response.ts': [
    [
      'a dead token is taken',
      'if (expiresAtWallS <= theirNowS) return badToken',
      'if (false) return badToken',
    ],
    [
      'a token is not valid yet',
      "Math.min(seconds(claims?.['nbf']) ?? nowS, nowS)",
      "seconds(claims?.['nbf']) ?? nowS",
    ],
  ],
  'src/nmi/sources/entra/credentials/credential-cache.ts': [
    [
      'a Secret is read for every resource',
      'reading.get(key) ?? startReading(key, secret)',
      'startReading(key, secret)',
    ],
    ['a clientCredential is kept that nobody needs', 'if (isNeeded(secret)) kept.set', 'kept.set'],
    ['a refused clientCredential is kept', 'if (isKept) kept.delete(key);', ''],
    [
      'a rotated Secret is not tried again',
      'return hasNewer || reused.has(refused);',
      'return false;',
    ],
    ['a wrong secret is sent twice', 'return hasNewer || reused.has(refused);', 'return true;'],
  ],
  'src/nmi/sources/entra/credentials/key-file.ts': [
    ['a file has any length', 'if (bytes.length > maxFileBytes) {', 'if (false) {'],
    ['a certificate alone is damaged', 'if (isCertificate(bytes)) {', 'if (false) {'],
  ],
  'src/nmi/sources/entra/credentials/key-pair.ts': [
    [
      'a key takes minutes to sign with',
      "if (!isOfUsualShape(key)) throw unsuitable('has an RSA key of an unusual shape');",
      '',
    ],
    ['a key is of any length', '> maxKeyBits) {', '> 1e9) {'],
    [
      'a certificate of another key is sent',
      'parsed.find((certificate) => isOfKey(certificate, key))',
      'parsed[0]',
    ],
    [
      'a certificate is sent that has expired',
      'if (isValidAt(certificate, nowWallMs)) return;',
      'return;',
    ],
    ['every certificate of a file is sent', 'chain.length < maxChain', 'chain.length < 1e9'],
  ],
  'src/nmi/sources/entra/credentials/pem.ts': [
    [
      'many keys are opened',
      "if (more.length > 0) throw new KeyFileError('UNSUITABLE', 'has several private keys');",
      '',
    ],
    ['a block hides another', " || body.includes('-----')", ''],
    [
      'a block has no end',
      "if (bodyEnd < 0) throw new KeyFileError('MALFORMED', 'has a block of PEM without its end');",
      'if (bodyEnd < 0) return;',
    ],
  ],
  'src/nmi/sources/entra/credentials/private-key.ts': [
    ['a key is opened before its kind is seen', 'if (oid !== rsaOid) {', 'if (false) {'],
    [
      'a key of another kind is passed off as PKCS#1',
      'return open(readRsa(der), ',
      'return open(der, ',
    ],
  ],
  'src/nmi/sources/entra/credentials/secret-credential.ts': [
    [
      'a Secret of another namespace is read',
      "secretNamespace !== '' && secretNamespace !== namespace",
      'false',
    ],
    [
      'a name is a path',
      'if (!isDnsSubdomain(secretName)) return',
      "if (secretName === '') return",
    ],
  ],
  'src/nmi/sources/entra/credentials/secret-entries.ts': [
    ['the line end of echo is a part of the secret', "text.replace(/\\r?\\n$/, '')", 'text'],
    ['bytes that are no text are a secret', 'fatal: true', 'fatal: false'],
  ],
  'src/nmi/tokens/evict-deleted-secrets.ts': [
    ['an outage takes tokens away', 'if (!isGone) continue;', ''],
    ['the tokens of a deleted Secret are served', 'broker.dropTokensBySecret(secret);', ''],
  ],
  'src/nmi/tokens/certificate-expiries.ts': [
    [
      'Secrets of one namespace are kept without end',
      'if (ofNamespace.size <= maxOfNamespace) return;',
      'return;',
    ],
    [
      'a certificate that nobody needs is shown',
      'if (!this.#isNeeded(credential)) ofNamespace.delete(name);',
      '',
    ],
    [
      'namespaces are kept without end',
      'if (known === undefined && this.#known.size >= maxNamespaces) return;',
      '',
    ],
  ],
  'src/nmi/tokens/token-samples.ts': [
    ['a token that nobody uses raises an alert', "if (token.state === 'idle') continue;", ''],
  ],
  'src/nmi/tokens/broker.ts': [
    [
      'tokens are kept that no pod may have',
      'this.#cache.drop((request) => !this.#isWanted(request));',
      '',
    ],
    ['an excepted pod’s tokens are for ever', 'isExcepted && demand.hasExcepted()', 'isExcepted'],
    [
      'a slow authority holds the places of all others',
      'const key = `${identity.authority} ${identity.credential.kind}`;',
      "const key = '';",
    ],
    [
      'a refused credential keeps its tokens',
      "=== 'credential_missing') this.#dropTokensOf(identity);",
      "=== 'credential_missing') void 0;",
    ],
    [
      'Entra ID or IMDS is asked for an old token again',
      'const bypassCache = this.#renewing.delete(key);',
      'const bypassCache = false;',
    ],
  ],
  'src/nmi/sources/imds/imds.ts': [
    [
      'a token of another identity is relayed',
      'if (told !== undefined && told !== normalisers[identity.kind](identity.value)) {',
      'if (false) {',
    ],
    [
      'the agent goes on with a connection to itself',
      'if (isLoop(answer.status, answer.body)) connections.reopen();',
      '',
    ],
    [
      'a service that asks for a pause is asked at once',
      'if (result.failure.retryAfterS !== undefined) break;',
      '',
    ],
    ['tries are on top of the budget', 'if (!mayRetry()) break;', ''],
    [
      'a service that is being updated refuses for good',
      'status === 404 || status === 410 || ',
      '',
    ],
    [
      'an odd header holds a key for days',
      'const maxRetryAfterS = 120;',
      'const maxRetryAfterS = 1e9;',
    ],
    [
      'a new token is asked for and not passed on',
      "(bypassCache === true ? '&bypass_cache=true' : '')",
      "''",
    ],
    ['a resource ends the query', 'encodeURIComponent(resource)}${named}', 'resource}${named}'],
    [
      'an identity writes parameters of its own',
      'encodeURIComponent(identity.value)',
      'identity.value',
    ],
    [
      'the node’s name is asked for by every failure',
      'this.#nextTryAtMs = nowMs + nodeRetryMs;',
      '',
    ],
    [
      'a missing assignment is a failure of the service',
      "if (error === 'invalid_request' && request.identity.kind !== 'unnamed') {",
      'if (false) {',
    ],
  ],
  'src/nmi/sources/entra/entra.ts': [
    [
      'a rotated secret fails until it is read again',
      'if (!clientCredentials.forget(credential, got.clientCredential)) return result;',
      'return result;',
    ],
    [
      'a refused credential is asked about twice',
      'if (!clientCredentials.forget(credential, got.clientCredential)) return result;',
      'clientCredentials.forget(credential, got.clientCredential);',
    ],
    ['a second try is on top of the budget', 'if (!mayRetry()) return failed(untried);', ''],
    [
      'an error says what it holds',
      'deadline.passed ? late(options) : broken(error)',
      'entraDown(String(error), 1_000)',
    ],
  ],
  'src/nmi/sources/entra/network.ts': [
    ['an answer takes all memory', 'if (bytes > maxBodyBytes)', 'if (false)'],
    ['any certificate will do', 'rejectUnauthorized: true', 'rejectUnauthorized: false'],
    ['the system’s authorities are given up', "ca: [...getCACertificates('default'), ...ca]", 'ca'],
    ['a file without a certificate is taken', 'if (own.length === 0) {', 'if (false) {'],
  ],
  'src/nmi/sources/entra/token-exchange.ts': [
    [
      'a slash of the resource is lost',
      "return resource.endsWith('/.default') ? resource : `${resource}/.default`;",
      "return `${resource.replace(/\\/$/, '')}/.default`;",
    ],
    [
      'the tenant writes the path',
      'encodeURIComponent(identity.tenantId)',
      'identity.tenantId',
      'resolve-upstream.ts lets tenant ids and domain names through, and nothing else',
    ],
    [
      'the secret comes back in a failure',
      'classifyEntraError(answer, secretsIn(form))',
      'classifyEntraError(answer, [])',
    ],
    [
      'an abort is a failure of Entra ID',
      'signal.throwIfAborted();\n    const { answer',
      'const { answer',
    ],
    [
      'the form goes where MSAL wants',
      "if (url.split('?')[0] !== endpoint) throw",
      'if (false) throw',
      'the pinned MSAL posts to the endpoint that it was given; the check is for the next one',
    ],
  ],
  'src/nmi/sources/entra/credentials/assertion-cache.ts': [
    [
      'an assertion is used to its last second',
      'const marginMs = 5 * 60_000;',
      'const marginMs = 0;',
    ],
    [
      'a clock that was set back lends it life',
      'entry?.podUid === podUid && clock.wallMs() < entry.usableUntilWallMs',
      'entry?.podUid === podUid',
    ],
    [
      'an assertion outlives its pod',
      'entry?.podUid === podUid && clock',
      'entry !== undefined && clock',
    ],
    ['an assertion is kept that nobody needs', 'if (!mayBeKept(entry)) return;', ''],
    [
      'a refused assertion is sent again',
      'if (entry?.clientCredential === refused) kept.delete(key);',
      '',
    ],
    ['two pods share one assertion', 'return JSON.stringify([key, podUid]);', 'return key;'],
    [
      'an assertion of a pod that is gone is kept',
      'kept.delete(key);\n      return { ok: false, failure: found };',
      'return { ok: false, failure: found };',
    ],
  ],
  'src/nmi/sources/entra/credentials/federated.ts': [
    [
      'an account without a live pod has assertions',
      'pod === undefined ? noLivePod(serviceAccount) : { serviceAccount, pod }',
      '({ serviceAccount, pod })',
    ],
    [
      'accounts share assertions for one audience',
      'return `${objectKey(serviceAccount.namespace, serviceAccount.name)} ${audience}`;',
      'return audience;',
    ],
    ['an unknown spec.federation is the node’s', "federation === 'node'\n", 'true\n'],
  ],
  'src/nmi/sources/entra/credentials/federated-failure.ts': [
    [
      'an API server holds an identity for hours',
      'const boundedMs = Math.min(waitMs, maxCooldownMs);',
      'const boundedMs = heldForMs;',
    ],
  ],
  'src/nmi/sources/imds/loop-detection.ts': [
    ['another agent is taken for this one', "randomBytes(4).toString('hex')", "'00000000'"],
    [
      'a call of the agent is not known again',
      'return this.#prefix + randomUUID().slice(this.#prefix.length);',
      'return randomUUID();',
    ],
  ],
  'src/nmi/sources/entra/credentials/certificate.ts': [
    [
      'an error of a library is shown to a pod',
      "if (!(error instanceof KeyFileError)) return 'cannot be read';",
      'if (!(error instanceof KeyFileError)) return String(error);',
    ],
    [
      'a certificate is at fault while its thread is missing',
      "error instanceof KeyFileError && error.code === 'BUSY'",
      'false',
    ],
    ['a line end is part of the password', 'trimmed === text ? [text] : [text, trimmed]', '[text]'],
    [
      'a certificate without a key is taken',
      'certificate === undefined || key === undefined',
      'certificate === undefined',
    ],
  ],
  'src/nmi/sources/entra/credentials/pfx.ts': [
    ['a file takes a core for minutes', 'cost <= maxCost', 'true'],
    ['each password has a budget of its own spent by the last', 'cost = 0;\n    try', 'try'],
    [
      'a number of rounds overflows',
      'return type === asn1.Type.INTEGER && value.length > 4;',
      'return false;',
    ],
    [
      'no password is not tried',
      "passwords.includes('') ? [...passwords, null] : passwords",
      'passwords',
    ],
    [
      'a file writes into the answer',
      "typeof oid === 'string' && /^[\\d.]{1,64}$/.test(oid)",
      "typeof oid === 'string'",
    ],
  ],
  'src/nmi/sources/entra/credentials/key-file-opener.ts': [
    ['one namespace keeps the thread', 'waiting.delete(owner);\n      if', 'if'],
    [
      'one namespace’s files wait without bound',
      'if (queue.length >= maxWaiting) {',
      'if (false) {',
    ],
    [
      'a file holds the thread for ever',
      'AbortSignal.timeout(timeoutMs)',
      'AbortSignal.timeout(1e9)',
    ],
    [
      'a thread that a file broke is used again',
      'void worker?.terminate();\n        worker = undefined;',
      '',
    ],
    [
      'the agent’s memory goes to the thread',
      'bytes: Uint8Array.from(job.file.bytes)',
      'bytes: new Uint8Array(job.file.bytes.buffer)',
    ],
  ],
  'src/nmi/sources/entra/credentials/secret.ts': [
    [
      'a line end is part of the secret',
      'const clientSecret = withoutLineEnd(text);',
      'const clientSecret = text;',
    ],
    ['any entry will do', 'data.size === 1 ? data.keys() : []', 'data.keys()'],
    ['an empty secret is sent', "if (clientSecret === '') {", 'if (false) {'],
  ],
};

/** Conformance cases: what a service on the metadata address must do, and which tests prove it. */

/**
 * `wire`: over HTTP alone, against any address. `test-bed`: against our own agent, and the test
 * controls its fakes. `entra`: the same, with tokens from the lab's Entra ID. `elsewhere`: by a test
 * of another suite, named by the beginning of its title.
 */
export type Proof =
  | { readonly kind: 'wire' }
  | { readonly kind: 'test-bed' }
  | { readonly kind: 'entra' }
  | { readonly kind: 'elsewhere'; readonly file: string; readonly test: string };

export interface ConformanceCase {
  readonly number: number;
  readonly title: string;
  readonly proofs: readonly Proof[];
}

const wire: Proof = { kind: 'wire' };
const testBed: Proof = { kind: 'test-bed' };
const entra: Proof = { kind: 'entra' };

function elsewhere(file: string, test: string): Proof {
  return { kind: 'elsewhere', file, test };
}

/** A scenario of the lab, by its name. */
function scenario(file: string, name: string): Proof {
  return elsewhere(`lab/scenarios/${file}.ts`, name);
}

const listener = (test: string) => elsewhere('test/unit/nmi/server/listener.test.ts', test);
const reflector = (test: string) => elsewhere('test/unit/nmi/kube/reflector.test.ts', test);
const reflectorContract = (test: string) =>
  elsewhere('test/cluster/support/reflector-contract.ts', test);
const clients = (test: string) => elsewhere('test/node/clients/clients.kernel.test.ts', test);

const clientsGetTokens = clients('gets its pod');
const clientsCache = clients('asks the agent ');

export const cases: readonly ConformanceCase[] = [
  // Probe and header rules
  of(1, 'the bare path without Metadata is answered with exactly the 88 bytes', wire),
  of(
    2,
    'a full query without Metadata gets the same answer, and nothing is requested upstream',
    wire,
    testBed,
  ),
  of(3, 'a query with msi-res-id gets the same answer', wire),
  of(4, 'an unknown caller gets the same answer', wire),
  of(5, 'the probe is answered in 100 ms while upstream and API server hang', testBed),
  of(6, 'the name of the Metadata header is accepted in any case', wire),
  of(7, 'its value is exactly true, once', wire),
  of(8, 'X-Forwarded-For in any form is refused', wire),
  of(9, 'a Content-Type on a GET without a body does not matter', wire),
  of(10, 'Accept does not matter', wire),
  of(11, 'a POST with a form is refused, and the answer allows GET', wire),
  of(12, 'HEAD, PUT, DELETE, OPTIONS and others are not served', wire),
  of(13, 'HTTP/1.0 and Connection: close work, and a kept connection a hundred times', wire),
  // Paths
  of(14, 'a slash at the end of the path does not matter', wire),
  of(15, 'the first segment has any case', wire),
  of(16, 'the other segments are case-sensitive', wire),
  of(17, 'two slashes at the beginning do not matter', wire),
  of(
    18,
    'backslashes, encoded separators and dot segments are refused, and nothing is forwarded',
    ...[wire, testBed, scenario('tokens/wire', 'token-path-spellings')],
  ),
  of(19, 'an absolute request target is served', wire),
  of(20, 'the path of the second version of the protocol is not found, with any header', wire),
  of(
    21,
    'instance metadata follows the policy',
    wire,
    testBed,
    scenario('tokens/wire', 'passthrough'),
  ),
  of(
    22,
    'attested data, scheduled events and the load balancer follow the policy',
    ...[wire, testBed, scenario('tokens/wire', 'passthrough-policy')],
  ),
  of(23, 'the paths of other clouds are refused within 100 ms', wire),
  // Parameters
  of(24, 'every documented api-version is accepted', wire),
  of(25, 'a missing or empty resource is refused in the words of IMDS', wire),
  of(26, 'a resource gets the same token raw and encoded', wire),
  of(27, 'every spelling of a resource is accepted and echoed to the byte', wire),
  of(28, 'parameters come in any order', wire),
  of(29, 'a client_id is found in any case', wire),
  of(30, 'a client_id of another identity is not found', wire),
  of(31, 'an object_id is found, and another is not', wire),
  of(32, 'msi_res_id and mi_res_id are found, raw and encoded, in any case', wire),
  of(33, 'more than one identity parameter is refused', wire),
  of(34, 'an empty identity parameter counts as absent', wire),
  of(35, 'unknown parameters do not matter', wire),
  of(36, 'bypass_cache=true fetches once for all concurrent requests, at a limited rate', testBed),
  // Success body
  of(37, 'all values are strings, and no key is missing', wire),
  of(38, 'expires_in comes before expires_on', wire),
  of(39, 'every time is digits, and none is empty', wire),
  of(40, 'token_type is Bearer', wire),
  of(41, 'resource is the requested one, to the byte', wire),
  of(42, 'the times agree with the token and with the clock, also from the cache', wire),
  of(43, 'a cached answer counts expires_in down and keeps the other fields', wire, testBed),
  of(44, 'no token has less than 300 s left while upstream is healthy', testBed),
  of(45, 'the head has length, server, request id and date, and no chunks', wire, testBed),
  of(46, 'not_before has passed', wire),
  // Real clients
  of(47, '@azure/identity gets a token by each id, one request each', clientsGetTokens),
  of(48, '@azure/identity caches what it gets', clientsCache),
  of(49, 'its default chain takes a probe and a request', clients('gets both identities by its')),
  of(50, 'azure-identity, msal for Python and the Azure CLI get tokens', clientsGetTokens),
  of(51, 'azidentity for Go gets tokens by each id', clientsGetTokens),
  of(
    52,
    '/host/token serves loopback in the nested shape, and no pod',
    ...[testBed, scenario('node/node-surface', 'host-token')],
  ),
  // Errors
  of(
    53,
    'a pod without an identity gets 400 Identity not found, and SDKs do not retry',
    ...[wire, clients('gets the reason why a pod has no identity')],
  ),
  of(54, 'every error is JSON with both texts, malformed HTTP included', wire, testBed),
  of(55, 'no Retry-After on 200, 400, 403 and 404', wire),
  of(56, 'AADSTS500011 is returned as invalid_resource with its text', entra),
  of(57, 'a refused secret shows in no body and no log', entra),
  of(58, 'AADSTS70021 is transient for five minutes, and permanent if it lasts', entra),
  of(59, 'a 429 of Entra ID blocks its key for as long as it says, and no other', entra),
  of(60, 'Entra ID down, late, cut or HTML is 503, and recovers at once', entra),
  of(61, 'a cached token is served while Entra ID is down', entra),
  of(62, 'upstream 410, 404 and 429 are returned as 503 and 429', testBed),
  of(63, 'an unknown caller gets a Retry-After of at most 3 s', testBed),
  of(64, 'the first request of a pod that is announced a second late succeeds', testBed),
  of(
    65,
    'a new pod on an old address never gets the token of the old one',
    ...[testBed, scenario('pods/addresses', 'address-reused')],
    scenario('pods/addresses', 'kept-connection-outlives-pod'),
  ),
  // Concurrency, limits, upstream
  of(66, 'two hundred requests for one token are one upstream request', testBed),
  of(67, 'fifty tokens at once are never more than 5 concurrent or 20 a second upstream', testBed),
  of(68, 'a pod that floods gets 429, and other pods are not affected', testBed),
  of(69, 'a client that disconnects cancels no fetch and leaves nothing behind', testBed),
  of(70, 'the scope is the resource and /.default, verbatim', entra),
  of(71, 'a federated assertion is requested correctly and reused only within its life', entra),
  of(72, 'a rotated secret or certificate is used without a restart', entra),
  of(
    73,
    'an outage of the API server does not hurt known pods, and ends',
    ...[scenario('pods/kube-outage', 'api-away-later')],
    ...[
      reflector('outlives every refusal'),
      reflectorContract('a reflector continues where it was'),
    ],
    reflector('lists again, in one step, when a 410'),
  ),
  of(74, 'after each of six watch closes, a new pod is served within a second', testBed),
  of(
    75,
    'SIGTERM lets requests finish and takes no new ones',
    elsewhere('test/unit/process/life.test.ts', 'finishes requests under way on '),
  ),
  of(
    76,
    'logs and metrics have no token and no whole client id',
    scenario('tokens/upstream', 'no-token-in-logs'),
  ),
  of(
    77,
    'slow and half-open connections end, and their number is bounded',
    ...[testBed, listener('closes the oldest unused connection')],
    listener('end the connection when too many are pipelined'),
  ),
  // Revoked tokens
  of(78, 'token_sha256_to_refresh replaces the token with that hash, once for all', testBed, entra),
];

/** The title of a test that proves a case. */
export function caseTitle(number: number): string {
  const found = cases.find((each) => each.number === number);
  if (found === undefined) throw new RangeError(`there is no case ${number}`);
  return `${number}. ${found.title}`;
}

function of(number: number, title: string, ...proofs: readonly Proof[]): ConformanceCase {
  return { number, title, proofs };
}

/**
 * The requests of pods: mostly for the few tokens that all of them use, with every spelling of an
 * identity.
 */
import type { Chance } from '../../simulation/chance.ts';
import { assigned, identities, namespaces } from './objects.ts';

export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

export interface TokenQuestion {
  readonly resource: string;
  /** The lab's name of the requested identity; undefined if none is named. */
  readonly identity: string | undefined;
  /** The pod for which a process of the host sends this request. */
  readonly onBehalfOf: PodName | undefined;
}

export interface Question {
  readonly bytes: string;
  /** Undefined for requests that can get no token. */
  readonly token: TokenQuestion | undefined;
  /** The answer of the real service is forwarded unchanged. */
  readonly isRelayed: boolean;
}

const resources = ['https://vault.azure.net', 'https://storage.azure.com/'] as const;

const weights = {
  unnamed: 30,
  byClientId: 45,
  byResourceId: 6,
  byObjectId: 4,
  byUnknownId: 2,
  forPod: 6,
  instance: 1,
  versions: 1,
  events: 1,
  withoutHeader: 1,
  elsewhere: 1,
};

/** @param pod the pod for which a process of the host sends requests. */
export function anyQuestion(chance: Chance, pod: PodName | undefined): Question {
  const name = chance.name(weights);
  switch (name) {
    case 'instance':
      return relayed('/metadata/instance?api-version=2021-02-01');
    case 'versions':
      return relayed('/metadata/versions');
    case 'events':
      return relayed('/metadata/scheduledevents?api-version=2020-07-01', 'POST');
    case 'withoutHeader':
      return plain(render('GET', `${tokenPath}?${common(chance)}`, []));
    case 'elsewhere':
      return plain(render('GET', '/metadata/nowhere', ['Metadata: true']));
    case 'forPod':
      return pod === undefined ? anyToken(chance, 'unnamed') : forPod(chance, pod);
    default:
      return anyToken(chance, name);
  }
}

const tokenPath = '/metadata/identity/oauth2/token';

type Naming = 'unnamed' | 'byClientId' | 'byResourceId' | 'byObjectId' | 'byUnknownId';

function anyToken(chance: Chance, naming: Naming): Question {
  const resource = anyResource(chance);
  const wanted = chance.pick(chance.happens(0.7) ? assigned : identities);
  const { selector, identity } = nameIt(naming, wanted);
  const fresh = chance.happens(0.1) ? '&bypass_cache=true' : '';
  const query = `api-version=2018-02-01&resource=${encodeURIComponent(resource)}${selector}${fresh}`;
  return {
    bytes: render('GET', `${tokenPath}?${query}`, ['Metadata: true']),
    token: { resource, identity, onBehalfOf: undefined },
    isRelayed: false,
  };
}

function nameIt(
  naming: Naming,
  { name, clientId, resourceId, objectId }: (typeof identities)[number],
): { readonly selector: string; readonly identity: string | undefined } {
  switch (naming) {
    case 'unnamed':
      return { selector: '', identity: undefined };
    case 'byClientId':
      return { selector: `&client_id=${clientId}`, identity: name };
    case 'byResourceId':
      return {
        selector: `&msi_res_id=${encodeURIComponent(resourceId)}`,
        identity: nameOf(resourceId, name),
      };
    case 'byObjectId':
      return { selector: `&object_id=${objectId}`, identity: name };
    case 'byUnknownId':
      return { selector: '&client_id=00000000-0000-4000-8000-000000000000', identity: 'nobody' };
  }
}

/** An application has no resource id, and an empty resource id names nothing. */
function nameOf(resourceId: string, name: string): string | undefined {
  return resourceId === '' ? undefined : name;
}

function forPod(chance: Chance, pod: PodName): Question {
  const resource = anyResource(chance);
  const onBehalfOf = chance.happens(0.9)
    ? pod
    : { name: pod.name, namespace: chance.pick(namespaces) };
  const headers = [`podns: ${onBehalfOf.namespace}`, `podname: ${onBehalfOf.name}`];
  return {
    bytes: render('GET', `/host/token?resource=${encodeURIComponent(resource)}`, headers),
    token: { resource, identity: undefined, onBehalfOf },
    isRelayed: false,
  };
}

/** Rarely a resource that no pod has requested before. */
function anyResource(chance: Chance): string {
  return chance.happens(0.98) ? chance.pick(resources) : `https://r${chance.between(0, 1e6)}/`;
}

function common(chance: Chance): string {
  return `api-version=2018-02-01&resource=${chance.pick(resources)}`;
}

function relayed(target: string, method: 'GET' | 'POST' = 'GET'): Question {
  const body = method === 'POST' ? '{"StartRequests":[]}' : '';
  const headers = ['Metadata: true', ...(body === '' ? [] : [`Content-Length: ${body.length}`])];
  return { bytes: render(method, target, headers) + body, token: undefined, isRelayed: true };
}

function plain(bytes: string): Question {
  return { bytes, token: undefined, isRelayed: false };
}

function render(method: string, target: string, headers: readonly string[]): string {
  return `${[`${method} ${target} HTTP/1.1`, 'Host: h', ...headers].join('\r\n')}\r\n\r\n`;
}

/** Beginnings and ends of requests that are invalid, or do not fit each other. */
const fragments = [
  ...['GARBAGE\r\n\r\n', 'GET / HTTP/1.1\r\nA B: c\r\n\r\n', 'GET /\u0001 HTTP/1.1\r\n\r\n'],
  ...['CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n', 'BREW / HTTP/1.1\r\n\r\n', '\r\n', '\0'],
  ...[`GET ${tokenPath} HTTP/1.1\r\n`, 'Metadata: true\r\n', 'Expect: foo\r\n', 'hello'],
  ...['Content-Length: 5\r\n', 'Content-Length: -1\r\n', 'Transfer-Encoding: chunked\r\n'],
  ...[
    'Upgrade: h2c\r\nConnection: Upgrade\r\n',
    '5\r\nhello\r\n',
    '0\r\n\r\n',
    'Connection: close\r\n',
  ],
  `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
] as const;

export function anyGarbage(chance: Chance): string {
  return Array.from({ length: chance.between(1, 8) }, () => chance.pick(fragments)).join('');
}

/**
 * A situation: objects that differ from one correctly bound pod, a request, and the expected words
 * of everything that reports what the pod gets. README.md has the format of the files.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { asRecord, stringAt, type JsonRecord } from '../../src/base/json-value.ts';
import { nameOf, type RawObject } from '../../src/kubectl/base/object.ts';
import {
  clientA,
  createAgentPod,
  createEvent,
  createObject,
  createPod,
  nowWallMs,
  type Recorded,
} from '../unit/kubectl/recorded-kubectl.ts';

const folder = join(import.meta.dirname, 'corpus');

export interface Situation {
  readonly name: string;
  /** Those of the file and of every situation. */
  readonly objects: readonly RawObject[];
  readonly request: Partial<Record<'client_id' | 'msi_res_id' | 'resource', string>>;
  /** Options of the agent. */
  readonly args: readonly string[];
  /** What the user of the plugin may not list. */
  readonly hidden: NonNullable<Recorded['forbidden']>;
  readonly expected: Expected;
}

/** The words of a file. */
export interface Expected {
  readonly answer: string;
  readonly upstream?: string;
  readonly body?: string;
  readonly event?: string;
  readonly explained?: string;
  readonly verdict?: string;
  readonly notChecked?: string;
  /** By the names of tellers. */
  readonly findings?: Readonly<Record<string, string>>;
  readonly conditions?: Readonly<Record<string, string>>;
  readonly output?: string;
}

interface File extends Expected {
  readonly objects?: Readonly<Record<string, JsonRecord | null>>;
  readonly agent?: readonly string[] | 'none' | 'not ready' | 'of aad-pod-identity';
  readonly hidden?: Situation['hidden'];
  readonly request?: Situation['request'];
}

const keys =
  'objects agent hidden request answer upstream body event explained verdict notChecked findings conditions output';

const oldImage = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';

const bindingLabel = { aadpodidbinding: 'orders' };

/** Of every situation; a file changes them, or removes one by `null`. */
const usual: NonNullable<File['objects']> = {
  'Pod web': {},
  'AzureIdentity orders': { type: 0, clientID: clientA },
  'AzureIdentityBinding orders': { azureIdentity: 'orders', selector: 'orders' },
};

const otherVersions: Readonly<Record<string, string>> = {
  Node: 'v1',
  ServiceAccount: 'v1',
  Deployment: 'apps/v1',
  StatefulSet: 'apps/v1',
  NetworkPolicy: 'networking.k8s.io/v1',
};

export function readSituations(): readonly Situation[] {
  return readdirSync(folder).map((file) => readSituation(file.replace(/\.yaml$/, '')));
}

export function readSituation(name: string): Situation {
  const text = readFileSync(join(folder, `${name}.yaml`), 'utf8');
  const { objects = {}, agent = [], hidden = {}, request = {}, ...expected } = parse(text) as File;
  for (const key of Object.keys(parse(text) as File))
    if (!keys.split(' ').includes(key)) throw new Error(`${name}.yaml: nothing reads ${key}`);
  const given = Object.entries({ ...usual, ...objects }).flatMap(([title, fields]) =>
    fields === null ? [] : [[title, fields] as const],
  );
  const isEvent = ([title]: (typeof given)[number]) => title.startsWith('Event ');
  const created = given.filter((each) => !isEvent(each)).map((each) => createNamed(...each));
  const args = typeof agent === 'string' ? [] : agent;
  return {
    name,
    args,
    hidden,
    request,
    expected,
    objects: [
      ...created,
      ...given.filter(isEvent).map(([, fields]) => createReport(fields, created)),
      ...(agent === 'none'
        ? []
        : [
            createAgentPod('node-1', {
              args,
              isReady: agent !== 'not ready',
              ...(agent === 'of aad-pod-identity' ? { image: oldImage } : {}),
            }),
          ]),
    ],
  };
}

/** @param title `KIND NAME` in namespace shop, or `KIND NAMESPACE/NAME`. */
function createNamed(title: string, fields: JsonRecord): RawObject {
  const [kind = '', path = ''] = title.split(' ');
  const [name = '', namespace = kind === 'AzureIdentityGrant' ? '' : 'shop'] = path
    .split('/')
    .toReversed();
  const { annotations, ageS, owner, notReady, ...rest } = fields;
  const { labels = title === 'Pod web' ? bindingLabel : {}, status, ...specified } = rest;
  const known = { namespace, labels: textsOf(labels), annotations: textsOf(annotations) };
  const apiVersion = otherVersions[kind];
  const object =
    kind === 'Pod'
      ? createPod(name, { ...known, ...podFieldsOf(specified), ...(owner ? { owner } : {}) })
      : createObject(kind, name, asRecord(specified['spec']) ?? specified, known, apiVersion);
  const metadata = { ...asRecord(object['metadata']) };
  if (typeof ageS === 'number')
    metadata['creationTimestamp'] = new Date(nowWallMs - ageS * 1_000).toISOString();
  if (namespace === '') delete metadata['namespace'];
  const ready = { type: 'Ready', status: 'False', reason: notReady, message: 'Because.' };
  const conditions = notReady === undefined ? {} : { conditions: [ready] };
  const whole = { ...asRecord(object['status']), ...asRecord(status), ...conditions };
  return { ...object, metadata, ...(Object.keys(whole).length > 0 ? { status: whole } : {}) };
}

/** An Event of an agent about an object of the situation, which has its title in `about`. */
function createReport({ about, agoS, ...fields }: JsonRecord, objects: readonly RawObject[]) {
  const object = objects.find((each) => `${String(each['kind'])} ${nameOf(each)}` === about);
  if (object === undefined) throw new Error(`no ${String(about)} has this Event`);
  return createEvent(object, { reason: '', ...fields, agoMs: Number(agoS) * 1_000 });
}

function podFieldsOf({ env, spec, ip, account }: JsonRecord) {
  const variables = Object.entries(textsOf(env)).map(([name, value]) => ({ name, value }));
  const container = { name: 'app', image: 'app', env: variables };
  return {
    ...(typeof ip === 'string' ? { ip } : {}),
    spec: {
      containers: [container],
      ...(typeof account === 'string' ? { serviceAccountName: account } : {}),
      ...asRecord(spec),
    },
  };
}

function textsOf(value: unknown): Readonly<Record<string, string>> {
  const record = asRecord(value) ?? {};
  return Object.fromEntries(Object.keys(record).map((key) => [key, stringAt(record, key)]));
}

/**
 * The fake Kubernetes API's objects: one version counter for all, a bounded history to resume
 * watches from, and listeners. It does no I/O.
 */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../../src/base/time/clock.ts';
import { asRecord, stringAt, type JsonRecord } from '../../../src/base/json-value.ts';
import { alreadyExists, badRequest, conflict, notFound, type Refusal } from './refusals.ts';
import {
  apiVersionOf,
  resourceOfKind,
  type FakeObject,
  type FakeRef,
  type FakeResource,
} from './resources.ts';

/** One write. `previous` is absent for a creation, `current` for a deletion. */
export interface FakeChange {
  readonly resource: FakeResource;
  readonly version: number;
  readonly previous: FakeObject | undefined;
  readonly current: FakeObject | undefined;
}

export type WriteResult =
  { readonly ok: true; readonly object: FakeObject } | ({ readonly ok: false } & Refusal);

export interface FakeKubeStore {
  /** Version of the newest write. */
  readonly version: number;
  /** Fails with 409 when the object exists. */
  create(object: unknown): WriteResult;
  /**
   * Fails with 404 when it does not exist, with 409 on another resourceVersion than the stored one.
   */
  replace(object: unknown): WriteResult;
  /** Creates or replaces; keeps an existing uid and creation time. */
  apply(object: unknown): WriteResult;
  /**
   * Fails with 409 if the changed object has another resourceVersion than the stored one, with 422
   * if there is no changed one.
   */
  patch(ref: FakeRef, change: (previous: FakeObject) => unknown): WriteResult;
  delete(ref: FakeRef): WriteResult;
  get(ref: FakeRef): FakeObject | undefined;
  /** Sorted by namespace and name. */
  list(resource: FakeResource): readonly FakeObject[];
  /**
   * Changes after `version`, or `undefined` when the history no longer has all of them. A future
   * version has no changes.
   */
  since(version: number): readonly FakeChange[] | undefined;
  subscribe(listener: (change: FakeChange) => void): () => void;
  /** Forgets the history. The version increases, as by writes elsewhere in the cluster. */
  compact(): void;
  /** The oldest version that a watch can resume from. */
  readonly oldestVersion: number;
  /** Versions of writes elsewhere in the cluster. */
  skip(versions: number): void;
  /** @returns what brings objects, versions and history back, without an event. */
  save(): () => void;
}

/** What a watch is answered from. */
export type FakeView = Pick<FakeKubeStore, 'version' | 'list' | 'since' | 'subscribe'>;

const historyLimit = 10_000;

export function createFakeKubeStore(clock: Clock): FakeKubeStore {
  const objects = new Map<string, FakeObject>();
  const listeners = new Set<(change: FakeChange) => void>();
  let history: FakeChange[] = [];
  let version = 1;
  let oldestVersion = 1;

  function commit(
    resource: FakeResource,
    previous: FakeObject | undefined,
    current: FakeObject | undefined,
  ): void {
    const change = { resource, version, previous, current };
    history.push(change);
    if (history.length > 2 * historyLimit) {
      history = history.slice(-historyLimit);
      oldestVersion = (history[0]?.version ?? version) - 1;
    }
    for (const listener of [...listeners]) listener(change);
  }

  function write(
    input: unknown,
    check: (previous: FakeObject | undefined, draft: Draft) => WriteResult | undefined,
  ): WriteResult {
    const draft = draftOf(input);
    if (typeof draft === 'string') return invalid(draft);
    const key = keyOf(draft.resource, draft.namespace, draft.object.metadata.name);
    const previous = objects.get(key);
    const refused = check(previous, draft);
    if (refused !== undefined) return refused;
    const completed = complete(draft, previous, clock);
    if (previous !== undefined && isDeepStrictEqual(completed, previous)) {
      // A write without a change creates no version and no event.
      return { ok: true, object: previous };
    }
    version += 1;
    const current = withVersion(completed, version);
    objects.set(key, current);
    commit(draft.resource, previous, current);
    return { ok: true, object: current };
  }

  function find(ref: FakeRef): { readonly key: string; readonly resource: FakeResource } {
    const resource = resourceOfKind(ref.kind);
    if (resource === undefined) throw new TypeError(`unknown kind ${ref.kind}`);
    return { key: keyOf(resource, ref.namespace ?? 'default', ref.name), resource };
  }

  return {
    get version() {
      return version;
    },
    get oldestVersion() {
      return oldestVersion;
    },
    create: (object) =>
      write(object, (previous, draft) =>
        previous === undefined
          ? undefined
          : refuse(alreadyExists(draft.resource, draft.object.metadata.name)),
      ),
    replace: (object) =>
      write(object, (previous, { object: next, resource }) => {
        const { name } = next.metadata;
        if (previous === undefined) return refuse(notFound(resource, name));
        const expected = next.metadata.resourceVersion ?? '';
        return expected === '' || expected === previous.metadata.resourceVersion
          ? undefined
          : refuse(conflict(resource, name));
      }),
    apply: (object) => write(object, () => undefined),
    patch(ref, change) {
      const { key, resource } = find(ref);
      const previous = objects.get(key);
      if (previous === undefined) return refuse(notFound(resource, ref.name));
      let changed: unknown;
      try {
        changed = change(previous);
      } catch {
        return invalid('the server rejected our request due to an error in our request');
      }
      return write(changed, (_previous, { object: next }) => {
        const { name } = next.metadata;
        if (next.kind !== previous.kind) return invalid('a patch cannot change the kind');
        const expected = next.metadata.resourceVersion ?? '';
        if (expected !== '' && expected !== previous.metadata.resourceVersion) {
          return refuse(conflict(resource, name));
        }
        if (name === ref.name) return undefined;
        const message = `the name of the object (${name}) does not match the name on the URL (${ref.name})`;
        return refuse(badRequest(message));
      });
    },
    delete(ref) {
      const { key, resource } = find(ref);
      const previous = objects.get(key);
      if (previous === undefined) return refuse(notFound(resource, ref.name));
      objects.delete(key);
      version += 1;
      commit(resource, previous, undefined);
      return { ok: true, object: previous };
    },
    get: (ref) => objects.get(find(ref).key),
    list(resource) {
      const prefix = `${resource.plural}.${resource.group}/`;
      return [...objects]
        .filter(([key]) => key.startsWith(prefix))
        .toSorted(([one], [other]) => (one < other ? -1 : 1))
        .map(([, object]) => object);
    },
    since(from) {
      if (from < oldestVersion) return undefined;
      return history.filter((change) => change.version > from);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    compact() {
      version += 1;
      history = [];
      oldestVersion = version;
    },
    skip(versions) {
      version += versions;
    },
    save() {
      const saved = { version, oldestVersion, objects: [...objects], history: [...history] };
      return () => {
        ({ version, oldestVersion } = saved);
        history = [...saved.history];
        objects.clear();
        for (const [key, object] of saved.objects) objects.set(key, object);
      };
    },
  };
}

/** The object with another resourceVersion; used for deletion events. */
export function withVersion(object: FakeObject, version: number): FakeObject {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
}

interface Draft {
  readonly resource: FakeResource;
  readonly namespace: string;
  readonly object: FakeObject;
}

/** A copy of the input with its resource type, or an error text. */
function draftOf(input: unknown): Draft | string {
  const object: unknown = structuredClone(input);
  const record = asRecord(object);
  if (record === undefined) return 'the body is not an object';
  const kind = stringAt(record, 'kind');
  const apiVersion = stringAt(record, 'apiVersion');
  const resource = resourceOfKind(kind);
  if (resource === undefined || apiVersion !== apiVersionOf(resource)) {
    return `no matches for kind "${kind}" in version "${apiVersion}"`;
  }
  if (!isNamed(record)) return 'metadata.name: Required value';
  const namespace = resource.namespaced ? (record.metadata.namespace ?? 'default') : '';
  return { resource, namespace, object: record };
}

/** Other fields are stored as the author wrote them, wrong types included. */
function isNamed(record: JsonRecord): record is FakeObject {
  return stringAt(asRecord(record['metadata']), 'name') !== '';
}

function complete(draft: Draft, previous: FakeObject | undefined, clock: Clock): FakeObject {
  const { metadata } = draft.object;
  const stored = previous?.metadata;
  return {
    ...draft.object,
    metadata: {
      ...metadata,
      ...(draft.namespace === '' ? {} : { namespace: draft.namespace }),
      uid: stored?.uid ?? metadata.uid ?? randomUUID(),
      creationTimestamp:
        stored?.creationTimestamp ??
        metadata.creationTimestamp ??
        new Date(clock.wallMs()).toISOString().replace(/\.\d+Z$/, 'Z'),
      ...(stored?.resourceVersion === undefined ? {} : { resourceVersion: stored.resourceVersion }),
    },
  };
}

function keyOf(resource: FakeResource, namespace: string, name: string): string {
  const scope = resource.namespaced ? `${namespace}/` : '';
  return `${resource.plural}.${resource.group}/${scope}${name}`;
}

function refuse(refusal: Refusal): WriteResult {
  return { ok: false, ...refusal };
}

function invalid(message: string): WriteResult {
  return refuse({ status: 422, reason: 'Invalid', message });
}

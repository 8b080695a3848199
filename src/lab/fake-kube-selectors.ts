/** Field and label selectors, as far as the API server's equality syntax goes. Pure. */
import { asRecord } from '../nmi/json-value.ts';
import type { FakeObject, FakeResource } from './fake-kube-resources.ts';

export type Matches = (object: FakeObject) => boolean;

/** An unusable selector is a sentence for the client. */
export type SelectorResult =
  | { readonly ok: true; readonly matches: Matches }
  | { readonly ok: false; readonly message: string };

/** `a=b,c==d,e!=f` over the fields this resource can be selected by. */
export function parseFieldSelector(text: string, resource: FakeResource): SelectorResult {
  const fields = ['metadata.name', 'metadata.namespace', ...resource.selectable];
  return parseTerms(text, (term) => {
    const equality = splitEquality(term);
    if (equality === undefined) return `invalid field selector: ${term}`;
    const { key, negated, value } = equality;
    if (!fields.includes(key)) return `field label not supported: ${key}`;
    return (object) => (fieldOf(object, key) === value) !== negated;
  });
}

/** `a=b,c==d,e!=f,g,!h`; set-based terms are not known here. */
export function parseLabelSelector(text: string): SelectorResult {
  return parseTerms(text, (term) => {
    if (/[()]|\s(in|notin)\s/.test(term)) return `set-based selectors are not supported: ${term}`;
    const equality = splitEquality(term);
    if (equality !== undefined) {
      const { key, negated, value } = equality;
      // As the server has it: `!=` also matches objects without the label.
      return (object) => (labelOf(object, key) === value) !== negated;
    }
    const absent = term.startsWith('!');
    const key = absent ? term.slice(1).trim() : term;
    return (object) => (labelOf(object, key) === undefined) === absent;
  });
}

function parseTerms(text: string, parse: (term: string) => Matches | string): SelectorResult {
  const terms: Matches[] = [];
  for (const term of text.split(',').map((part) => part.trim())) {
    if (term === '') continue;
    const parsed = parse(term);
    if (typeof parsed === 'string') return { ok: false, message: parsed };
    terms.push(parsed);
  }
  return { ok: true, matches: (object) => terms.every((matches) => matches(object)) };
}

function splitEquality(
  term: string,
): { readonly key: string; readonly negated: boolean; readonly value: string } | undefined {
  const at = term.indexOf('=');
  if (at < 1) return undefined;
  const negated = term[at - 1] === '!';
  const key = term.slice(0, negated ? at - 1 : at).trim();
  const value = term.slice(term[at + 1] === '=' ? at + 2 : at + 1).trim();
  return key === '' ? undefined : { key, negated, value };
}

function labelOf(object: FakeObject, key: string): string | undefined {
  const labels = object.metadata.labels ?? {};
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}

function fieldOf(object: FakeObject, path: string): string {
  let value: unknown = object;
  for (const key of path.split('.')) {
    value = asRecord(value)?.[key];
  }
  return typeof value === 'string' ? value : '';
}

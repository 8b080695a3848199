/** Field and label selectors, in the API server's syntax. Pure. */
import { asRecord } from '../../../src/base/json-value.ts';
import type { FakeObject, FakeResource } from './resources.ts';

export type Matches = (object: FakeObject) => boolean;

/** A string is an error text for the client. */
export type SelectorResult =
  | { readonly ok: true; readonly matches: Matches }
  | { readonly ok: false; readonly message: string };

/** `a=b,c==d,e!=f` over the fields this resource can be selected by. */
export function parseFieldSelector(text: string, resource: FakeResource): SelectorResult {
  const fields = ['metadata.name', 'metadata.namespace', ...resource.selectable];
  return parseTerms(text.split(','), (term) => {
    const [, key = '', operator, value = ''] = /^([^=!]*)(==|=|!=)([^=]*)$/.exec(term) ?? [];
    if (operator === undefined) return `invalid selector: '${text}'; can't understand '${term}'`;
    if (!fields.includes(key)) return `field label not supported: ${key}`;
    return (object) => (fieldOf(object, key) === value) !== (operator === '!=');
  });
}

const labelTerm =
  /^(?:(?<absent>!)\s*)?(?<key>[\w./-]+)(?:\s*(?<operator>==|=|!=)\s*(?<value>[\w.-]*)|\s+(?<set>in|notin)\s*\((?<values>[^()]*)\))?$/;

/** `a=b,c==d,e!=f,g,!h,i in (j,k),l notin (m)`. */
export function parseLabelSelector(text: string): SelectorResult {
  // A comma between parentheses belongs to the set.
  return parseTerms(text.split(/,(?![^(]*\))/), (term) => {
    const { key, absent, operator, value, set, values } = labelTerm.exec(term)?.groups ?? {};
    const isAbsence = absent !== undefined;
    if (key === undefined || (isAbsence && (operator ?? set) !== undefined)) {
      return `unable to parse requirement: ${term}`;
    }
    const wanted = set === undefined ? value : values;
    if (wanted === undefined) return (object) => (labelOf(object, key) === undefined) === isAbsence;
    const accepted = set === undefined ? [wanted] : wanted.split(',').map((one) => one.trim());
    // As in the real server: a negation also matches objects without the label.
    const negated = operator === '!=' || set === 'notin';
    return (object) => {
      const label = labelOf(object, key);
      return (label !== undefined && accepted.includes(label)) !== negated;
    };
  });
}

function parseTerms(
  texts: readonly string[],
  parse: (term: string) => Matches | string,
): SelectorResult {
  const terms: Matches[] = [];
  for (const term of texts.map((part) => part.trim())) {
    if (term === '') continue;
    const parsed = parse(term);
    if (typeof parsed === 'string') return { ok: false, message: parsed };
    terms.push(parsed);
  }
  return { ok: true, matches: (object) => terms.every((matches) => matches(object)) };
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

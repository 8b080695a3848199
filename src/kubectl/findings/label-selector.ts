/** Label selectors as Kubernetes defines them. Pure. */
import { stringAt, type JsonRecord } from '../../base/json-value.ts';
import { recordsAt, stringsAt, textsAt } from '../base/object.ts';

type Labels = ReadonlyMap<string, string>;

/** An empty selector matches everything; an absent one nothing. */
export function matchesSelector(selector: JsonRecord | undefined, labels: Labels): boolean {
  if (selector === undefined) return false;
  for (const [key, value] of stringsAt(selector, 'matchLabels')) {
    if (labels.get(key) !== value) return false;
  }
  return recordsAt(selector, 'matchExpressions').every((each) => matchesExpression(each, labels));
}

function matchesExpression(expression: JsonRecord, labels: Labels): boolean {
  const value = labels.get(stringAt(expression, 'key'));
  const values = textsAt(expression, 'values');
  switch (stringAt(expression, 'operator')) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    default:
      return false;
  }
}

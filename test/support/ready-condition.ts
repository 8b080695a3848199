import { asRecord, stringAt } from '../../src/base/json-value.ts';

/** The condition `Ready` of an object's status, as its status and reason; a blank when there is none. */
export function readyIn(status: unknown): string {
  const listed: unknown = asRecord(status)?.['conditions'];
  const list: readonly unknown[] = Array.isArray(listed) ? listed : [];
  const ready = asRecord(list.find((each) => asRecord(each)?.['type'] === 'Ready'));
  return `${stringAt(ready, 'status')} ${stringAt(ready, 'reason')}`;
}

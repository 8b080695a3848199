/** The one table of codes: the reasons of answers and the findings about objects. */
import { refusals, type RefusalReason } from '../base/answers.ts';
import { answerCodes } from './answer-codes.ts';
import { objectCodes } from './object-codes.ts';

export const severities = ['error', 'warning', 'info'] as const;
export type Severity = (typeof severities)[number];

export type Code = RefusalReason | keyof typeof objectCodes;

export interface CodeRow {
  readonly severity: Severity;
  readonly means: string;
  readonly fix: string;
  /** How to check it, for a reason of answers. */
  readonly check: string | undefined;
  /** HTTP status, likewise. */
  readonly status: number | undefined;
  /** Of its description in the documentation. */
  readonly link: string;
}

export const allCodes: readonly string[] = [
  ...Object.keys(answerCodes),
  ...Object.keys(objectCodes),
];

export function rowOf(code: Code): CodeRow {
  if (isAnswer(code)) {
    const { status } = refusals[code];
    return { severity: 'error', ...answerCodes[code], status, link: `docs/reasons.md#${code}` };
  }
  const link = `docs/kubectl.md#${code}`;
  return { ...objectCodes[code], check: undefined, status: undefined, link };
}

export function isCode(text: string): text is Code {
  return Object.hasOwn(answerCodes, text) || Object.hasOwn(objectCodes, text);
}

function isAnswer(code: string): code is RefusalReason {
  return Object.hasOwn(answerCodes, code);
}

/** What is wrong, on which object, and what to do: one shape for every verb that checks something. */
import type { RefusalReason } from '../../nmi/base/answers.ts';
import { findingPages, pageOf, type FindingCode } from './runbook.ts';

export const severities = ['error', 'warning', 'info'] as const;
export type Severity = (typeof severities)[number];

export interface Finding {
  readonly code: FindingCode | RefusalReason;
  readonly severity: Severity;
  /** As `Pod shop/web`. */
  readonly object: string;
  readonly text: string;
  readonly fix: string;
  /** Near misses, and other facts that help. */
  readonly details: readonly string[];
  /** Of the runbook. */
  readonly page: string;
}

interface FindingFields {
  readonly object: string;
  readonly text: string;
  /** Default: that of the runbook. */
  readonly fix?: string;
  readonly details?: readonly string[];
  readonly severity?: Severity;
}

export function createFinding(code: Finding['code'], fields: FindingFields): Finding {
  const page = pageOf(code);
  const { object, text, fix = page.fix, details = [] } = fields;
  const severity = fields.severity ?? (isFindingCode(code) ? findingPages[code].severity : 'error');
  return { code, severity, object, text, fix, details, page: page.link };
}

function isFindingCode(code: Finding['code']): code is FindingCode {
  return Object.hasOwn(findingPages, code);
}

/** Errors first; within a severity by object, then by code. */
export function sortFindings(findings: readonly Finding[]): readonly Finding[] {
  const keyOf = ({ severity, object, code }: Finding) =>
    `${severities.indexOf(severity)} ${object} ${code}`;
  return findings.toSorted((one, other) => (keyOf(one) < keyOf(other) ? -1 : 1));
}

/** Whether any is as severe as the threshold, or more. */
export function reaches(findings: readonly Finding[], threshold: Severity): boolean {
  const limit = severities.indexOf(threshold);
  return findings.some(({ severity }) => severities.indexOf(severity) <= limit);
}

export function renderFindings(findings: readonly Finding[]): readonly string[] {
  return findings.flatMap(({ code, severity, object, text, fix, details, page }) => [
    `${severity.padEnd(7)} ${object}: ${code}`,
    `        ${text}`,
    ...details.map((each) => `        - ${each}`),
    `        fix: ${fix}`,
    `        see: kubectl nmi reasons ${code}, or ${page}`,
  ]);
}

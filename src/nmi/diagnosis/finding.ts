/** What is wrong, on which object, and what to do: one shape for everything that speaks to a person. */
import { rowOf, severities, type Code, type Severity } from './codes.ts';

export interface Finding {
  readonly code: Code;
  readonly severity: Severity;
  readonly object: string;
  readonly text: string;
  readonly fix: string;
  /** Near misses, and other facts that help. */
  readonly details: readonly string[];
  /** Of the documentation. */
  readonly page: string;
}

interface FindingFields {
  readonly object: string;
  readonly text: string;
  /** Default: that of the table. */
  readonly fix?: string | undefined;
  readonly details?: readonly string[];
  readonly severity?: Severity;
}

export function createFinding(code: Code, fields: FindingFields): Finding {
  const row = rowOf(code);
  const { object, text, fix = row.fix, details = [], severity = row.severity } = fields;
  return { code, severity, object, text, fix, details, page: row.link };
}

/** A list of one, as checks return lists. */
export function oneFinding(code: Code, fields: FindingFields): readonly Finding[] {
  return [createFinding(code, fields)];
}

/** Errors first; within a severity by object, then by code. */
export function sortFindings(findings: readonly Finding[]): readonly Finding[] {
  const keyOf = ({ severity, object, code }: Finding) =>
    `${severities.indexOf(severity)} ${object} ${code}`;
  return findings.toSorted((one, other) => (keyOf(one) < keyOf(other) ? -1 : 1));
}

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

/** Which test files need the machine's kernel to themselves, told by their names. */

/** Scenarios of the node lab, run whole. */
export function isLab(file: string): boolean {
  return /(?:^|\/)test\/lab\/scenarios[^/]*\.test\.ts$/.test(file);
}

/** Makes namespaces, links and rules, or measures time under load: one at a time. */
export function isExclusive(file: string): boolean {
  return (
    isLab(file) ||
    file.endsWith('.kernel.test.ts') ||
    /(?:^|\/)test\/lab\/fabric\.test\.ts$/.test(file)
  );
}

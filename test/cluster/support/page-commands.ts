/** The commands of README and docs, for tests that type them. */

/** The shell blocks below a second-level heading, in order and without their indentation. */
export function shellBlocksOf(page: string, heading: string): readonly string[] {
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  if (section === undefined) throw new TypeError(`there is no section ${heading}`);
  return allShellBlocks(section);
}

export function allShellBlocks(page: string): readonly string[] {
  return [...page.matchAll(/^( *)```sh\n(.*?)^\1```$/gms)].map(([, indent = '', block = '']) =>
    block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  );
}

/** The version line, in the shape the replaced system's scripts read. */
import { buildInfo } from '../nmi/base/build-info.ts';

export function renderVersion(): string {
  const { version, commit, date } = buildInfo;
  return `MIC Version: none - NMI Version: ${version} - Commit: ${commit} - Date: ${date}\n`;
}

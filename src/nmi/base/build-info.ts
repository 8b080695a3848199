/** Version and commit of the running program, set by the build; "from source" without a build. */

declare const __NMI_BUILD__: BuildInfo | undefined;

export interface BuildInfo {
  readonly version: string;
  readonly commit: string;
  /** ISO 8601 date of the build. */
  readonly date: string;
}

export const buildInfo: BuildInfo =
  typeof __NMI_BUILD__ === 'undefined'
    ? { version: '0.0.0-source', commit: 'unknown', date: 'unknown' }
    : __NMI_BUILD__;

/** The user agent of outgoing calls, in the format of the replaced system. */
export function userAgent(custom: string): string {
  const own = `aad-pod-identity/NMI/${buildInfo.version}/${buildInfo.commit}/${buildInfo.date}`;
  return custom === '' ? own : `${own} ${custom}`;
}

/** In the format that scripts for the replaced system parse. */
export function renderVersion(): string {
  const { version, commit, date } = buildInfo;
  return `MIC Version: none - NMI Version: ${version} - Commit: ${commit} - Date: ${date}\n`;
}

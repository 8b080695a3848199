/**
 * Loads the whole agent and the fakes of the lab once more, with the modules of simulated machines in place of Node's,
 * of undici's connections, of the native module and of the eBPF mode. It may be loaded with a
 * fault in its text.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type * as imds from '../../lab/fakes/imds/fake-imds.ts';
import type * as kube from '../../lab/fakes/kube/fake-kube.ts';
import type * as agent from '../../src/nmi/agent.ts';
import type * as config from '../../src/nmi/config/config.ts';
import type * as conditions from '../../src/nmi/conditions-process.ts';
import type * as kernel from '../../src/nmi/kernel/kernel.ts';
import type * as daemon from '../../src/nmi/redirect-daemon.ts';
import type * as server from '../../src/nmi/server/server.ts';
import { edited, type Fault } from './fault.ts';

const root = pathToFileURL(join(import.meta.dirname, '../../')).href;
const moduleFolder = pathToFileURL(join(import.meta.dirname, 'modules/')).href;

const replacements: Readonly<Record<string, string>> = {
  'node:crypto': 'crypto.ts',
  'node:fs': 'fs.ts',
  'node:fs/promises': 'fs-promises.ts',
  'node:http': 'http.ts',
  'node:net': 'net.ts',
  'node:timers/promises': 'timers-promises.ts',
  'node:zlib': 'zlib.ts',
  undici: 'undici.ts',
  'simulated:globals': 'globals.ts',
};
/** By the end of the file's address. */
const replacedFiles: Readonly<Record<string, string>> = {
  'src/nmi/kernel/shared-file.ts': 'shared-file.ts',
  'src/redirect/native/addon.ts': 'addon.ts',
  'src/nmi/base/descriptor.ts': 'descriptor.ts',
  'src/redirect/cgroup/cgroup-tree.ts': 'cgroup-tree.ts',
  'src/redirect/ebpf/ebpf.ts': 'ebpf.ts',
};

const globals = [
  'performance',
  'Math',
  'setTimeout',
  'clearTimeout',
  'setInterval',
  'clearInterval',
  'setImmediate',
  'clearImmediate',
  'AbortSignal',
];

const mark = '?whole=';
const faults = new Map<string, Fault>();

registerHooks({
  resolve: (specifier, context, next) => {
    const [parent = '', name] = (context.parentURL ?? '').split(mark);
    if (name === undefined) return next(specifier, context);
    const replacement = replacements[specifier];
    if (replacement !== undefined) return { url: moduleFolder + replacement, shortCircuit: true };
    if (!specifier.startsWith('.')) return next(specifier, { ...context, parentURL: parent });
    const url = new URL(specifier, parent).href;
    const replaced = Object.entries(replacedFiles).find(([end]) => url === root + end)?.[1];
    if (replaced !== undefined) return { url: moduleFolder + replaced, shortCircuit: true };
    return { url: `${url}${mark}${name}`, shortCircuit: true };
  },
  load: (url, context, next) => {
    const [plain = '', name] = url.split(mark);
    if (name === undefined) return next(url, context);
    const text = edited(plain, readFileSync(new URL(plain), 'utf8'), faults.get(name));
    return { format: 'module-typescript', source: withGlobals(text), shortCircuit: true };
  },
});

/** On the first line, so that the lines keep their numbers. */
function withGlobals(text: string): string {
  const used = globals.filter(
    (name) =>
      new RegExp(`(?<![.\\w'])${name}[.(;,)]`).test(text) &&
      !new RegExp(`import \\{[^}]*\\b${name} ?[,}]`).test(text),
  );
  return used.length === 0
    ? text
    : `import { ${used.join(', ')} } from 'simulated:globals'; ${text}`;
}

export interface WholeCode {
  readonly startAgent: typeof agent.startAgent;
  readonly startRedirectDaemon: typeof daemon.startRedirectDaemon;
  readonly openKernel: typeof kernel.openKernel;
  readonly listenInTurn: typeof server.listenInTurn;
  readonly startConditions: typeof conditions.startConditions;
  readonly parseConfig: typeof config.parseConfig;
  readonly openFakeKube: typeof kube.openFakeKube;
  readonly openFakeImds: typeof imds.openFakeImds;
}

function loaderWith(fault: Fault | undefined): <T>(file: string) => Promise<T> {
  const name = fault?.name ?? 'none';
  if (fault !== undefined) faults.set(name, fault);
  return async <T>(file: string) => (await import(`${root}${file}${mark}${name}`)) as T;
}

export async function loadWhole(fault?: Fault): Promise<WholeCode> {
  const load = loaderWith(fault);
  const { startAgent } = await load<typeof agent>('src/nmi/agent.ts');
  const { startRedirectDaemon } = await load<typeof daemon>('src/nmi/redirect-daemon.ts');
  const { openKernel } = await load<typeof kernel>('src/nmi/kernel/kernel.ts');
  const { listenInTurn } = await load<typeof server>('src/nmi/server/server.ts');
  const { startConditions } = await load<typeof conditions>('src/nmi/conditions-process.ts');
  const { parseConfig } = await load<typeof config>('src/nmi/config/config.ts');
  const { openFakeKube } = await load<typeof kube>('lab/fakes/kube/fake-kube.ts');
  const { openFakeImds } = await load<typeof imds>('lab/fakes/imds/fake-imds.ts');
  return {
    startAgent,
    startRedirectDaemon,
    openKernel,
    listenInTurn,
    startConditions,
    parseConfig,
    openFakeKube,
    openFakeImds,
  };
}

/**
 * Loads files of src/nmi/kernel once more, with the modules of a simulated machine in place of
 * Node's and of the native one. The same files may be loaded with a fault.
 */
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { takeListener } from '../../src/nmi/kernel/held-listener.ts';
import type { openListenerHolder } from '../../src/nmi/kernel/listener-holder.ts';
import { edited, type Fault } from './fault.ts';

const codeFolder = pathToFileURL(join(import.meta.dirname, '../../src/nmi/kernel/')).href;
const moduleFolder = pathToFileURL(join(import.meta.dirname, 'modules/')).href;

const replacements: Readonly<Record<string, string>> = {
  'node:crypto': 'crypto.ts',
  'node:fs': 'fs.ts',
  'node:fs/promises': 'fs-promises.ts',
  'node:net': 'net.ts',
  'node:timers/promises': 'timers-promises.ts',
  'simulated:performance': 'performance.ts',
  '../../redirect/native/addon.ts': 'addon.ts',
};
/** Loaded as they are. */
const kept = /^(?:node:(?:events|path)|\.\.\/\.\.\/base\/.*)$/;

const faults = new Map<string, Fault>();
const mark = '?simulated=';

registerHooks({
  resolve: (specifier, context, next) => {
    const [parent = '', name] = (context.parentURL ?? '').split(mark);
    if (name === undefined) return next(specifier, context);
    const replacement = replacements[specifier];
    if (replacement !== undefined) return { url: moduleFolder + replacement, shortCircuit: true };
    if (kept.test(specifier)) return next(specifier, context);
    if (!specifier.startsWith('./')) throw new Error(`${parent} imports ${specifier}`);
    return { url: new URL(`${specifier}${mark}${name}`, parent).href, shortCircuit: true };
  },
  load: (url, context, next) => {
    const [plain = '', name] = url.split(mark);
    if (name === undefined) return next(url, context);
    const { source } = next(plain, context);
    const text = edited(plain, Buffer.from(source as Buffer).toString(), faults.get(name));
    // A global, which cannot be replaced by its name. The lines keep their numbers.
    const clock = "import { performance } from 'simulated:performance'; ";
    return { format: 'module-typescript', source: clock + text, shortCircuit: true };
  },
});

export interface Code {
  readonly openListenerHolder: typeof openListenerHolder;
  readonly takeListener: typeof takeListener;
}

export async function loadSimulated(fault?: Fault): Promise<Code> {
  const name = fault?.name ?? 'none';
  if (fault !== undefined) faults.set(name, fault);
  const load = (file: string): Promise<unknown> => import(`${codeFolder}${file}${mark}${name}`);
  const holder = (await load('listener-holder.ts')) as Pick<Code, 'openListenerHolder'>;
  const held = (await load('held-listener.ts')) as Pick<Code, 'takeListener'>;
  return { openListenerHolder: holder.openListenerHolder, takeListener: held.takeListener };
}

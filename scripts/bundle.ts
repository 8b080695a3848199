/**
 * Bundles one entry into one script for the single executable. Code inside an executable cannot
 * import files, so dynamic imports are inlined too; each still runs only when it is reached.
 *
 * The output is CommonJS, not an ES module, because the executable's V8 code cache works for
 * CommonJS only. Measured with pino at start and yargs, undici, prom-client and KubeConfig behind
 * dynamic imports (Node 26.10, 2 cores, medians of 12): start 88 ms and 102 MB resident as an ES
 * module with or without the cache, 39 ms and 93 MB as CommonJS with it. The price: no top-level
 * await in anything that src/main.ts reaches; the bundler reports its location as an error.
 */
import { isBuiltin } from 'node:module';
import { join } from 'node:path';
import { rolldown, type OutputChunk, type Plugin, type RolldownLog } from 'rolldown';
import { lazyPackages, noGeneratedModels, noTransports } from './facades.ts';

/** Build information that the executable reports; replaces `__NMI_BUILD__` in the sources. */
export interface BuildStamp {
  readonly version: string;
  readonly commit: string;
  /** ISO 8601, UTC, seconds. */
  readonly date: string;
}

const builtinPrefix = '\0builtin:';

/**
 * Static imports of Node's own modules are evaluated with the module that imports them, not at
 * start. Without this, a bundle loads every built-in module that any inlined module imports (http,
 * tls, undici's own...) before its first line: 118 instead of 95 ms, 113 instead of 105 MB, same
 * conditions as above.
 */
const lazyBuiltins: Plugin = {
  name: 'lazy-builtins',
  resolveId: {
    filter: { id: /^[a-z@]/ },
    handler(source, importer, { kind }) {
      if (!isBuiltin(source)) return null;
      // The bundler's own runtime needs its import before any wrapper exists; `require` is lazy anyway.
      const fromRuntime = importer?.startsWith('\0') ?? false;
      if (fromRuntime || kind === 'require-call') return { id: source, external: true };
      const id = `${builtinPrefix}node:${source.replace(/^node:/, '')}`;
      return { id, moduleSideEffects: false };
    },
  },
  load: {
    filter: { id: /^\0builtin:/ },
    handler(id) {
      const name = JSON.stringify(id.slice(builtinPrefix.length));
      return { code: `module.exports = process.getBuiltinModule(${name});`, moduleType: 'js' };
    },
  },
};

/**
 * Modules with which yargs renders help. Its parser imports them for another purpose; they have no
 * side effects, so the bundler may drop them where they are unused.
 */
const pureModules = /\/yargs\/lib\/platform-shims\//;

/**
 * The only warning that does not stop the build: yargs resolves `extends` of a configuration file
 * by `import.meta.resolve`, and it never gets a configuration file here.
 */
function isHarmless(log: RolldownLog): boolean {
  return log.code === 'EMPTY_IMPORT_META' && (log.id ?? '').includes('/node_modules/yargs/');
}

export interface Bundle {
  readonly script: string;
  /** The bundled modules: paths, and the bundler's own modules under names that are not paths. */
  readonly modules: readonly string[];
}

export interface Program extends Bundle {
  /** The script of the thread that opens key files. */
  readonly worker: string;
  /** What the executable's first script needs. */
  readonly loader: string;
}

/** All scripts of the executable; `modules` are those of both scripts. */
export async function bundleProgram(root: string, stamp: BuildStamp): Promise<Program> {
  const main = await bundle(join(root, 'src/main.ts'), stamp);
  const worker = await bundle(
    join(root, 'src/nmi/sources/entra/credentials/key-file-worker.ts'),
    stamp,
  );
  const loader = await bundle(join(root, 'src/redirect/native/program-text.ts'), stamp);
  return {
    script: main.script,
    worker: worker.script,
    loader: loader.script,
    modules: [...main.modules, ...worker.modules],
  };
}

/** The kubectl plugin: one script. A Node that is too old for it can parse it, so that it can say so. */
export function bundlePlugin(root: string, stamp: BuildStamp): Promise<Bundle> {
  return bundle(join(root, 'src/kubectl/main.ts'), stamp, 'node18');
}

/**
 * Bundles `entry` and all its imports into one script.
 * @param target the oldest Node that can parse it; default: this one.
 * @throws Error if the bundler warns, or if a module other than Node's own is not bundled.
 */
export async function bundle(entry: string, stamp: BuildStamp, target?: string): Promise<Bundle> {
  const build = await rolldown({
    input: entry,
    platform: 'node',
    plugins: [lazyPackages, noGeneratedModels, noTransports, lazyBuiltins],
    transform: {
      define: { __NMI_BUILD__: JSON.stringify(stamp) },
      ...(target === undefined ? {} : { target }),
    },
    treeshake: { moduleSideEffects: (id) => !pureModules.test(id) },
    // Whether plugins are slow depends on the machine, and must not fail a build.
    checks: { bundlerTimings: false },
    onLog(level, log) {
      if (level !== 'warn' || isHarmless(log)) return;
      throw new Error(`the bundler warns (${log.code ?? 'no code'}): ${log.message}`);
    },
  });
  try {
    const { output } = await build.generate({
      format: 'cjs',
      codeSplitting: false,
      // Keeps names of functions and classes for stack traces; text is one byte a character in V8.
      keepNames: true,
      charset: 'ascii',
      comments: false,
    });
    const { code, moduleIds } = onlyScript(output);
    return { script: code, modules: moduleIds };
  } finally {
    await build.close();
  }
}

function onlyScript(
  output: readonly { readonly type: string; readonly fileName: string }[],
): OutputChunk {
  const [first, ...rest] = output;
  if (first === undefined || !isChunk(first) || rest.length > 0) {
    throw new Error(`one script expected, got ${output.map((file) => file.fileName).join(', ')}`);
  }
  const left = [...first.imports, ...first.dynamicImports].filter((name) => !isBuiltin(name));
  if (left.length > 0) throw new Error(`left outside the bundle: ${left.join(', ')}`);
  return first;
}

function isChunk(file: { readonly type: string }): file is OutputChunk {
  return file.type === 'chunk';
}
